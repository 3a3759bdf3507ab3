"Version, requirements and extras from settings.ini; everything else stands in pyproject.toml."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

def lines(s): return [o.strip() for o in s.splitlines() if o.strip()]

cfg = ConfigParser(delimiters=['='], interpolation=None)
with open(Path(__file__).parent/'settings.ini', encoding='utf-8') as f: cfg.read_file(f)
cfg = cfg['DEFAULT']
extras = {k.removesuffix('_requirements'): lines(v) for k,v in cfg.items() if k.endswith('_requirements')}
setup(version=cfg['version'], install_requires=lines(cfg['requirements']), extras_require=extras)
