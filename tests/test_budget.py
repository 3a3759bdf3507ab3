"A training that keeps to a time: the arithmetic, by hand, on a clock that is wound on by hand"
from types import SimpleNamespace
import pytest
from fastai.callback.core import CancelFitException, CancelTrainException
from drone_seg.train.budget import KeepTime, Pace, steps_that_fit
from drone_seg.train.by_recipe import fit_epochs, fit_time
from drone_seg.train.stages import Stage
from drone_seg.fields import TrainError
from drone_seg.train.recipes import recipe

PACE = Pace(frozen=10, free=20, valid=2, after=15)

# --- what fits

@pytest.mark.parametrize('left,kw,want', [
    (60, {}, 40),                          # 4 epochs of 10 steps of 1 s and 5 s of validation
    (59.9, {}, 30),                        # 45 s: an epoch less
    (29, {}, 10),                          # one is 15 s, two are 30 s
    (60, dict(step=2), 20),                # 25 s each
    (24, dict(steps=4), 14),               # 4 + 5 s of this one, 15 s of the next
    (23, dict(steps=4), 4),
    (12, {}, 7),                           # no whole one: 7 s and a validation
    (5, {}, 0), (-3, {}, 0)])
def test_steps_that_fit(left, kw, want):
    assert steps_that_fit(left, **dict(steps=10, epochs=3, per_epoch=10, step=1, valid=5) | kw)==want

@pytest.mark.parametrize('name,seconds,kw,want', [
    ('best', 12+5*22+15, {}, (1,5,0)),     # 12 s with the encoder frozen, 22 s free
    ('best', 12+5*22+14.9, {}, (1,4,0)),
    ('best', 12+100*22+15, {}, (1,100,0)), # more than the recipe has
    ('best', 12+100*22+15, dict(more=False), (1,15,0)),
    ('best', 37, {}, (0,1,0)),             # one epoch, free from the start
    ('best', 19, {}, (0,1,0)),             # 2 of its 20 s: a tenth
    ('fastai-unet', 12*8+15, {}, (0,5,3)), # frozen throughout, 20 to 12
    ('smp-tuned', 22*7+15, {}, (0,7,0))])
def test_epochs_that_end_in_time(name, seconds, kw, want):
    r = fit_time(recipe(name), PACE, seconds, **kw)
    assert (r.freeze_epochs, r.epochs, r.final_epochs)==want

def test_what_cannot_be_is_refused_with_what_would_do():
    with pytest.raises(TrainError, match='18 s are left .* takes 37 s; give 19 s more'): fit_time(recipe('best'), PACE, 18)
    with pytest.raises(TrainError, match='^0 s are left .* takes 37 s; give 49 s more'): fit_time(recipe('best'), PACE, -12)

# --- on the way

class Toy:
    "fastai's loop without a network; a step takes `step(k)` seconds, a validation `valid`"
    def __init__(self, step, valid=2., n=10): self.now,self.step,self.valid,self.n,self.shares = 0.,step,valid,n,[]
    def clock(self): return self.now

    def run(self, keep, at=(0,0), stop=None):
        keep.learn = self.learn = SimpleNamespace(dls=SimpleNamespace(train=range(self.n)))
        for k,stage in list(enumerate(keep.stages))[at[0]:]:
            keep.before_fit()
            try:
                for self.learn.epoch in range(at[1] if k==at[0] else 0, stage.epochs):
                    if (k, self.learn.epoch)==stop: return self
                    self.do_epoch(keep)
            except CancelFitException: pass
        return self

    def do_epoch(self, keep):
        keep.before_epoch()
        self.learn.training = True
        keep.before_train()
        for self.learn.iter in range(self.n):
            try: keep.before_batch()
            except CancelTrainException: break
            self.now += self.step(len(self.shares))
            self.shares.append(self.learn.pct_train)
            keep.after_batch()
        self.learn.training = False
        keep.before_validate(); self.now += self.valid; keep.after_validate()
        keep.after_epoch()

def play(seconds, epochs, step, valid=2., pace=Pace(0, 10, 2)):
    toy = Toy(step, valid)
    return toy.run(KeepTime(seconds, pace, [Stage(e) for e in epochs], toy.clock))

def test_as_planned_the_schedule_is_that_of_fastai():
    toy = play(60, [5], lambda k: 1.)
    assert toy.shares==pytest.approx([k/50 for k in range(50)]) and toy.now==60

def test_little_is_forgiven():
    assert len(play(60, [5], lambda k: 1.04, 2.08).shares)==50
    assert len(play(60, [5], lambda k: 3. if k==17 else 1.).shares)==50 # one slow step

@pytest.mark.parametrize('slow', [1.3, 2., 4.])
@pytest.mark.parametrize('start', [0, 13, 24, 37])
def test_slower_from_some_step_on_ends_in_time_with_its_schedule_done(slow, start):
    toy = play(60, [5], lambda k: slow if k>=start else 1.)
    assert toy.now<=66
    assert all(a<=b for a,b in zip(toy.shares, toy.shares[1:])) # never back
    if slow<4: assert toy.shares[-1]>.8 # a fifth of the rate or less; four times as slow within an epoch is beyond a gentle end

def test_twice_as_slow_leaves_half_the_epochs_out():
    toy = play(60, [5], lambda k: 2., 4.) # 24 s each: two
    assert len(toy.shares)==20 and toy.now==48

def test_what_comes_after_keeps_its_time():
    toy = play(70, [5], lambda k: 2., 4., Pace(0, 10, 2, after=10)) # 20 s of it, now
    assert toy.now+20<=77

def test_a_later_stage_keeps_its_share():
    toy = play(12*12, [8,4], lambda k: 2., 4.) # 96 and 48 s, for 24 s each: 4 and 2
    assert len(toy.shares)==60 and toy.now==144
    assert toy.shares[40]==0 and toy.shares[39]>.9 # the second stage has a schedule of its own

def test_less_than_an_epoch():
    toy = play(8, [1], lambda k: 1.)
    assert len(toy.shares)==6 and toy.now==8 and toy.shares[-1]>.8

def test_what_goes_on_later_has_the_time_that_was_left():
    whole = play(60, [5], lambda k: 1. if k<10 else 2.).shares
    toy = Toy(lambda k: 1. if k<10 else 2.)
    first = KeepTime(60, Pace(0, 10, 2), [Stage(5)], toy.clock)
    toy.run(first, stop=(0,2))
    toy.now += 1000 # nobody was there
    again = KeepTime(60, Pace(0, 10, 2), [Stage(5)], toy.clock)
    again.before_fit = lambda: vars(again).update({k:getattr(first, k) for k in KeepTime.remember}) # as a checkpoint does
    toy.run(again, at=(0,2))
    assert toy.shares==pytest.approx(whole)

def test_minutes_and_seconds_are_rounded_together():
    "It said `about 2 min 60 s in all`"
    from drone_seg.train.by_recipe import minutes
    assert [minutes(s) for s in (99.4, 119.7, 179.6)]==['99 s', '2 min 0 s', '3 min 0 s']
