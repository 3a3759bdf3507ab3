"02_files: which line brings an extra, for each way in which a copy can have been installed"
import json, shlex, subprocess, sys
from pathlib import Path
import pytest
import drone_seg, drone_seg.files as files
from drone_seg.files import install_line

ROOT = Path(__file__).resolve().parent.parent

def is_taken_by_pip(line):
    "Whether pip resolves `line` to this project; nothing is installed or fetched"
    words = shlex.split(line)
    args = words[words.index('install')+1:]
    r = subprocess.run([sys.executable, '-m', 'pip', 'install', '--dry-run', '--no-deps', '--no-index', '--no-build-isolation', '--ignore-installed', *args], capture_output=True, text=True)
    return r.returncode==0 and 'Would install drone_seg' in r.stdout

@pytest.fixture
def installed(monkeypatch, tmp_path):
    "Pretends that the package lies in an environment, and that pip left the given note"
    def pretend(note):
        home = tmp_path/'site-packages'/'drone_seg'
        monkeypatch.setattr(drone_seg, '__file__', str(home/'__init__.py'))
        class Note:
            def read_text(self, name): return {'direct_url.json': note and json.dumps(note)}.get(name)
        monkeypatch.setattr(files, 'distribution', lambda name: Note())
    return pretend

def test_a_clone_names_its_folder():
    line = install_line('track')
    assert line.endswith(f'pip install -e "{ROOT}[track]"') and is_taken_by_pip(line)

@pytest.mark.parametrize('note, source', [
    (None, 'drone_seg[geo]'), # from an index pip leaves no note
    (dict(url='https://host/drone_seg.git', vcs_info=dict(vcs='git', commit_id='0123')), 'drone_seg[geo] @ git+https://host/drone_seg.git'),
    (dict(url='file:///nowhere/drone_seg-0.1.0-py3-none-any.whl', archive_info={}), 'drone_seg[geo]'), # deleted since
])
def test_other_ways_in(installed, note, source):
    installed(note)
    assert install_line('geo').endswith(f'pip install "{source}"')

def test_a_folder_with_a_space_that_was_installed_from(installed, tmp_path):
    folder = tmp_path/'my clone'
    folder.mkdir()
    installed(dict(url=folder.as_uri(), dir_info={}))
    assert install_line('geo').endswith(f'pip install "{folder}[geo]"')

def test_it_is_the_pip_of_this_python(monkeypatch, tmp_path):
    beside = Path(sys.executable).parent/'pip'
    monkeypatch.setattr(files.shutil, 'which', lambda name: str(beside))
    assert install_line('geo').startswith('pip install ')
    for other in None, str(tmp_path/'pip'):
        monkeypatch.setattr(files.shutil, 'which', lambda name: other)
        assert install_line('geo').startswith(f'"{sys.executable}" -m pip install ')
