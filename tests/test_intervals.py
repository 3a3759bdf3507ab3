"24_scores.intervals: coverage in drawn comparisons, against scipy's interval of a mean, and the bootstrap it replaces"
import numpy as np, pytest
from scipy import stats
from drone_seg.fields import DroneSegError
from drone_seg.scores.confusion import Scores
from drone_seg.scores.intervals import difference_intervals, say_difference, score_intervals, jackknife

PRIOR = np.array([.35, .25, .15, .1, .07, .05, .02, .01]) # Shares of eight classes, from ground to bicycles

def draw_places(n, rng, gap):
    "Two models on `n` places: (n, 8, 8) confusion matrices each; places differ in what they show and in how hard they are"
    share = rng.dirichlet(PRIOR*3, size=n)
    share[share<.003] = 0
    easy = np.linspace(2.5, 0, 8) + rng.normal(0, .7, (n,1)) + rng.normal(0, .7, (n,8))
    photos = rng.integers(1, 8, (n,1,1))
    for model in range(2):
        right = 1/(1+np.exp(-(easy + rng.normal(0, .4, (n,8)) + gap*model)))
        m = np.zeros((n,8,8))
        for c in range(8):
            others = np.arange(8)!=c
            m[:,c,c] = share[:,c]*right[:,c]
            m[:,c,others] = (share[:,c]*(1-right[:,c]))[:,None]*rng.dirichlet(PRIOR[others]*8, size=n)
        yield np.round(m*10_000*photos).astype(int)

def miou(m): return Scores(m).miou

def bootstrap(a, b, rng):
    times = rng.multinomial(len(a), np.full(len(a), 1/len(a)), size=400)
    draws = [[miou(np.tensordot(t, m, 1)) for m in (a, b)] for t in times[:100]]
    return np.percentile(np.diff(draws), (2.5, 97.5))

@pytest.mark.parametrize('places, gap, least, most', [(6, .3, .92, .97), (16, .3, .93, .97), (16, 0, .93, .97), (40, .3, .93, .97)])
def test_the_interval_holds_the_truth_in_95_of_100_cases(places, gap, least, most):
    rng = np.random.default_rng(1)
    first,second = draw_places(20_000, rng, gap)
    truth = miou(second.sum(0))-miou(first.sum(0))
    held = 0
    for _ in range(1000):
        some = rng.integers(0, 20_000, places)
        d = difference_intervals(first[some], second[some])['miou']
        held += d.low<=truth<=d.high
    assert least<=held/1000<=most

def test_the_interval_of_one_score_is_somewhat_too_narrow():
    "As the page says: a class that most places lack may fare otherwise elsewhere"
    rng = np.random.default_rng(1)
    first,_ = draw_places(20_000, rng, .3)
    truth,held = miou(first.sum(0)),0
    for _ in range(600):
        one = score_intervals(first[rng.integers(0, 20_000, 16)])['miou']
        held += one.low<=truth<=one.high
    assert .84<held/600<.94

def test_the_bootstrap_holds_it_less_often_where_places_are_few():
    rng = np.random.default_rng(2)
    first,second = draw_places(20_000, rng, .3)
    truth = miou(second.sum(0))-miou(first.sum(0))
    held = 0
    for _ in range(60):
        some = rng.integers(0, 20_000, 5)
        low,high = bootstrap(first[some], second[some], rng)
        held += low<=truth<=high
    assert held/60<.9

def test_an_accuracy_of_photos_of_one_size_is_a_mean():
    rng = np.random.default_rng(3)
    right = rng.integers(40, 90, 15)
    m = np.stack([np.diag([r,0]) + [[0,100-r],[0,0]] for r in right])
    d = score_intervals(m)['pixel_accuracy']
    low,high = stats.t.interval(.95, 14, (right/100).mean(), stats.sem(right/100))
    assert np.allclose([d.value, d.low, d.high], [(right/100).mean(), low, high])

def test_runs_count_by_their_mean():
    first,second = draw_places(12, np.random.default_rng(4), .3)
    both = score_intervals(np.stack([first, second]))['miou']
    assert both.value==pytest.approx((miou(first.sum(0))+miou(second.sum(0)))/2)
    same = score_intervals(np.stack([first, first]))['miou']
    assert same==score_intervals(first)['miou']

def test_values_are_those_of_scores():
    first,second = draw_places(12, np.random.default_rng(5), .3)
    s,found = Scores(first.sum(0)),score_intervals(first)
    assert np.allclose([found['miou'].value, found['macro_dice'].value, found['pixel_accuracy'].value], [s.miou, s.macro_dice, s.pixel_accuracy])
    assert np.allclose([i.value for i in found['iou']], s.iou)

def test_more_comparisons_ask_for_more():
    first,second = draw_places(12, np.random.default_rng(6), .3)
    one,three = [difference_intervals(first, second, level=o)['miou'] for o in (.95, 1-.05/3)]
    assert three.low<one.low and three.high>one.high and three.value==one.value

def test_what_is_seen_is_seen_four_times_of_five():
    "The true difference set to what can be seen: four of five judgements see it"
    rng = np.random.default_rng(7)
    found = 0
    for row in rng.normal(size=(2000,12)):
        without = (row.sum()-row)/11
        low = jackknife(row.mean()+.9, without+.9)[0]
        found += low>0
    t = stats.t.ppf(.975, 11) + stats.t.ppf(.8, 11)
    power = stats.nct.sf(stats.t.ppf(.975, 11), 11, .9*np.sqrt(12))
    assert found/2000==pytest.approx(power, abs=.03)
    assert stats.nct.sf(stats.t.ppf(.975, 11), 11, t)==pytest.approx(.8, abs=.02)

def test_one_place_and_none():
    first,second = draw_places(1, np.random.default_rng(8), .3)
    d = difference_intervals(first, second)['miou']
    assert np.isnan(d.low) and say_difference(d)=='no difference can be judged on 1 place'
    with pytest.raises(DroneSegError, match='photos'): difference_intervals(first, second[:,:3,:3])
