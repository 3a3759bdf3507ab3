"""What holds for every test: one thread each, no windows, no downloads, nothing left in the temporary folder. Set before torch is first imported."""
import os, shutil, sys, tempfile
import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')

# What libraries and killed processes leave in the temporary folder goes with a folder made for this run. Short: Ray's sockets lie in it
if 'DRONE_SEG_TESTS' not in os.environ:
    os.environ['DRONE_SEG_TESTS'] = os.environ['TMPDIR'] = tempfile.mkdtemp(prefix='ds')
    tempfile.tempdir = None

def pytest_unconfigure(config):
    if not hasattr(config, 'workerinput'): shutil.rmtree(os.environ.pop('DRONE_SEG_TESTS', ''), ignore_errors=True)

@pytest.fixture(scope='session')
def forks():
    "Runs programs in processes of their own that need not import everything first; see forks.py"
    if not hasattr(os, 'fork'): pytest.skip('needs fork')
    from forks import Forks
    res = Forks()
    yield res
    res.close()

@pytest.fixture(scope='session')
def program(forks):
    "Runs one program there, which must end well; what it printed"
    def run(code, *args):
        res, = forks.run((code, *args))
        assert res.returncode==0, res.stderr[-3000:]
        return res
    return run

@pytest.fixture(autouse=True)
def predict_in_float32(monkeypatch):
    "Networks answer in float32 on processors of every kind, so that numbers can be compared; tests of bfloat16 ask for it"
    look = sys.modules.get('drone_seg.predict.look')
    if look is not None: monkeypatch.setattr(look, 'has_fast_bf16', lambda device: False)
