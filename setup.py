"Version, requirements and extras from settings.ini, README.md with whole links; everything else stands in pyproject.toml."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

def lines(s): return [o.strip() for o in s.splitlines() if o.strip()]

# A package index shows the README alone: links into the repository have to name it
HERE = Path(__file__).parent
HOME = 'drone-seg/drone_seg'
readme = (HERE/'README.md').read_text(encoding='utf-8')
readme = readme.replace('](nbs/images/', f'](https://raw.githubusercontent.com/{HOME}/main/nbs/images/').replace('](nbs/', f'](https://github.com/{HOME}/blob/main/nbs/')

cfg = ConfigParser(delimiters=['='], interpolation=None)
with open(HERE/'settings.ini', encoding='utf-8') as f: cfg.read_file(f)
cfg = cfg['DEFAULT']
extras = {k.removesuffix('_requirements'): lines(v) for k,v in cfg.items() if k.endswith('_requirements')}
setup(version=cfg['version'], install_requires=lines(cfg['requirements']), extras_require=extras,
    long_description=readme, long_description_content_type='text/markdown')
