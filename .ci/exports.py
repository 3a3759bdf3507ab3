#!/usr/bin/env python3
"""Says whether drone_seg/ is what nbdev-export makes of nbs/, byte for byte; writes nothing into the checkout.

The pages are exported in a temporary copy that holds, besides them, only the files written by hand."""
import argparse, os, shutil, subprocess, sys, tempfile
from pathlib import Path

BY_HAND = '__init__.py', 'all.py'

def sources(lib):
    "Content of each Python file below `lib`, by its path"
    return {p.relative_to(lib).as_posix(): p.read_bytes() for p in sorted(Path(lib).rglob('*.py'))}

def export(root, tmp):
    "Exports the pages of `root` in the folder `tmp`; returns the package folder made there"
    shutil.copytree(root/'nbs', tmp/'nbs', ignore=shutil.ignore_patterns('.*'))
    shutil.copy(root/'pyproject.toml', tmp)
    (tmp/'drone_seg').mkdir()
    for f in BY_HAND:
        if (root/'drone_seg'/f).exists(): shutil.copy(root/'drone_seg'/f, tmp/'drone_seg')
    env = {k:v for k,v in os.environ.items() if k!='IN_TEST'} # nbdev exports nothing while its own tests run
    cmd = [sys.executable, '-c', 'from nbdev.doclinks import nbdev_export; nbdev_export()']
    r = subprocess.run(cmd, cwd=tmp, env=env, capture_output=True, text=True)
    if r.returncode: sys.exit(f'the pages do not export:\n{r.stdout}{r.stderr}')
    return tmp/'drone_seg'

def differences(root):
    "One line for each file of drone_seg/ that is not what the pages of `root` export"
    with tempfile.TemporaryDirectory() as d: want = sources(export(root, Path(d)))
    have = sources(root/'drone_seg')
    for f in sorted(have.keys()|want.keys()):
        if f not in want: yield f'drone_seg/{f} comes from no page'
        elif f not in have: yield f'drone_seg/{f} is missing'
        elif have[f]!=want[f]: yield f'drone_seg/{f} differs from what its page exports'

def main():
    p = argparse.ArgumentParser(description='Check that drone_seg/ is what nbs/ exports')
    p.add_argument('--root', type=Path, default=Path(__file__).resolve().parent.parent, help='the repository')
    bad = list(differences(p.parse_args().root.resolve()))
    if bad: sys.exit('\n'.join(bad+['run `make export`, and commit pages and exports together']))
    print('drone_seg/ is in step with the pages')

if __name__=='__main__': main()
