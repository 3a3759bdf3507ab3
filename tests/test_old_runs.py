"""A run folder that an earlier version wrote still opens, predicts what it predicted, and scores what it scored.

data/old_run.zip holds a U-Net trained for a moment on drawn scenes (weights rounded to eight bits of mantissa, so that
they pack well), three of the scenes, the masks it answered in float32, and its scores, as of November 2026."""
import json, os, subprocess, sys, zipfile
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
from drone_seg.all import load_bundle, open_dataset

HERE = Path(__file__).parent

@pytest.fixture(scope='module')
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp('old')
    with zipfile.ZipFile(HERE/'data'/'old_run.zip') as packed:
        packed.extractall(folder)
    return folder

def read_ids(path):
    with Image.open(path) as im:
        return np.array(im)

def info(run):
    env = os.environ | dict(PYTHONPATH=str(HERE.parent))
    return subprocess.run([sys.executable, '-m', 'drone_seg.cli', 'info', run], capture_output=True, text=True, env=env)

def test_an_old_run_predicts_what_it_predicted(old):
    bundle = load_bundle(old/'run')
    answers = sorted((old/'answers').iterdir())
    assert len(answers)==3
    for path in answers:
        before = read_ids(path)
        ids = bundle.predict(old/'scenes'/'images'/f'{path.stem}.jpg', dtype='fp32').ids
        assert len(np.unique(before))>3
        assert (ids==before).mean()>.999 # another processor rounds otherwise, which decides few pixels

def test_an_old_run_is_scored_as_it_was(old):
    before = json.loads((old/'run'/'scores.json').read_text())
    scores = load_bundle(old/'run').evaluate(open_dataset(old/'scenes'), progress=False, dtype='fp32')
    assert len(scores.stems)==3
    assert scores.miou==pytest.approx(before['miou'], abs=.002)
    assert scores.pixel_accuracy==pytest.approx(before['pixel_accuracy'], abs=.002)

def test_the_command_line_reads_an_old_run(old):
    told = info(old/'run')
    assert told.returncode==0, told.stderr
    assert 'unet on test_efficientnet' in told.stdout
    assert 'paved, grass, dirt' in told.stdout
