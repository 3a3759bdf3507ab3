"""Which photos to label next: by `next_photos`, by chance, by entropy alone, on real photos with masks.

    python benchmarks/next.py --data FOLDER [--probe] [--weights FILE] [--work FOLDER] [--one] [--out benchmarks/results/next-trained.md]

Photos and masks are first reduced to 256x384. Each seed holds back a quarter of the photos by whole places and starts from 20 of the others, drawn by chance.
Each way then adds 20, three times, each time asking the network that its own photos trained. All trainings have the same steps, and
their network is judged on the photos held back. What is done is kept in WORK as JSON; --one trains one network more and stops.

--probe takes minutes instead of an hour: the encoder stays as it came (seeing 192x288), and what is trained is a classifier of single points, a hidden layer of
96, on what the encoder's maps hold there; photos are judged on a grid of 24x36 points. What is chosen goes through the same `part_of_doubt` and `choose`.
"""
import argparse, json, sys
from pathlib import Path
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from drone_seg.data.datasets import open_dataset
from drone_seg.data.splits import Split
from drone_seg.models.bundle import load_bundle
from drone_seg.photo.images import resize_image, resize_mask, save_image, save_mask
from drone_seg.predict.stream import Looker
from drone_seg.runs.published import run_recipe
from drone_seg.models.zoo import create_model
from drone_seg.runs.to_label import choose, next_photos, part_of_doubt, read_small
from drone_seg.scores.intervals import difference_intervals, score_intervals

WAYS = 'next','chance','entropy'
ADD,ROUNDS = 20,3

def parse():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data', required=True)
    p.add_argument('--weights', default='auto')
    p.add_argument('--recipe', default='fast')
    p.add_argument('--size', default='192x288')
    p.add_argument('--steps', type=int, default=100, help='of each training')
    p.add_argument('--seeds', default='0,1,2')
    p.add_argument('--ways', default=','.join(WAYS))
    p.add_argument('--probe', action='store_true', help='points on a frozen encoder in the place of whole trainings')
    p.add_argument('--work', type=Path, default=Path('next'), help='folder for photos, networks and what they scored')
    p.add_argument('--one', action='store_true', help='train one network more and stop; exit code 3 when all are trained')
    p.add_argument('--out', default=str(Path(__file__).parent/'results'/'next-trained.md'))
    return p.parse_args()

def reduced(data, folder, size=(256,384)):
    "The data set at a small size"
    if (folder/'classes.csv').exists(): return open_dataset(folder)
    for s in data.stems:
        save_image(resize_image(data.read_photo(s), size), folder/'images'/f'{s}.jpg')
        save_mask(resize_mask(data.read_ids(s), size), data.classes, folder/'masks'/f'{s}.png')
    rows = zip(data.classes.ids, data.classes.names, data.classes.colors.tolist())
    lines = ['id,name,r,g,b,void'] + [f'{i},"{n}",{r},{g},{b},{int(i in data.classes.void)}' for i,n,(r,g,b) in rows]
    (folder/'classes.csv').write_text('\n'.join(lines)+'\n')
    return open_dataset(folder)

class Trial:
    "One seed: what is held back, and where it begins"
    def __init__(self, a, data, seed):
        split = data.split(by='place', valid=.25, seed=seed, progress=False)
        self.a,self.data,self.seed,self.pool,self.held = a,data,seed,split.train,split.valid
        self.first = sorted(np.random.default_rng(seed).choice(self.pool, ADD, replace=False).tolist())

    def file(self, way, k): return self.a.work/('probe' if self.a.probe else 'runs')/f'seed{self.seed}'/(f'{way}{k}.json' if k else 'start.json')
    def folder(self, way, k): return self.file(way, k).with_suffix('')
    def done(self, way, k): return json.loads(self.file(way, k).read_text())

    def choose(self, way, k):
        "The labelled photos of a round"
        if not k: return self.first
        have = self.done(way, k-1)['train']
        free = sorted(set(self.pool)-set(have))
        rng = np.random.default_rng([self.seed, k])
        if way=='chance': new = rng.choice(free, ADD, replace=False).tolist()
        else: new = self.by_entropy(way, k, free) if way=='entropy' else self.by_next(way, k)
        assert len(set(new)-set(have))==ADD and set(new)<=set(self.pool)
        return sorted([*have, *new])

    def by_entropy(self, way, k, free): return by_entropy(self.folder(way, k-1), self.data, free)

    def by_next(self, way, k):
        photos = [self.data.pair(s).image for s in self.pool]
        found = next_photos(self.folder(way, k-1), photos, ADD, progress=False)
        print(found.sentence)
        return [f.stem for f in found.files]

    def train(self, way, k):
        train,a = self.choose(way, k),self.a
        how = dict(steps=a.steps, seed=self.seed, size=a.size, weights=a.weights, bar=False, say=lambda *args: None)
        # judged after each epoch: by two photos, for time
        run = run_recipe(a.recipe, self.data, Split(train, self.held[:2]), self.folder(way, k), **how)
        scores = run.bundle.evaluate(self.data, self.held, progress=False)
        self.file(way, k).write_text(json.dumps(dict(train=train, miou=scores.miou, matrices=scores.matrices.tolist())))
        print(f'seed {self.seed} {way} {len(train)} photos: mIoU {scores.miou:.3f}', flush=True)

def by_entropy(run, data, free):
    "The photos with the greatest mean entropy"
    bundle = load_bundle(run)
    look,mean = Looker(bundle, scale=1),{}
    for s in free:
        image = read_small(bundle, data.pair(s).image)
        parts = [-(b.softmax(0)*b.log_softmax(0)).sum().item() for *_,b in look(image)]
        mean[s] = sum(parts)/image[...,0].size
    return sorted(free, key=lambda s: -mean[s])[:ADD]

GRID = 24,36 # Points of a photo

class Points:
    "What a frozen encoder holds at the points of all photos, how photos look, and the truth"
    def __init__(self, data, weights):
        net = create_model('fpn', 'tf_efficientnet_lite0', data.classes, weights=weights).eval()
        self.row,held,looks,truth = {s: k for k,s in enumerate(data.stems)},[],[],[]
        for s in data.stems:
            maps = self.maps(net, resize_image(data.read_photo(s), (192,288)))
            looks.append(F.normalize(maps[-1].mean((2,3)))[0])
            held.append(torch.cat([F.interpolate(m, GRID, mode='area' if m.shape[2]>GRID[0] else 'bilinear') for m in maps], 1)[0].flatten(1).T)
            truth.append(data.classes.encode(resize_mask(data.read_ids(s), GRID)).reshape(-1))
        held = torch.stack(held) # (photos, points, channels)
        self.held = ((held-held.mean((0,1)))/(held.std((0,1))+1e-6)).half()
        self.looks,self.truth = torch.stack(looks).numpy(),torch.from_numpy(np.stack(truth)).long()
        place = data.places(progress=False).place
        self.place = np.array([place[s] for s in data.stems])

    @torch.inference_mode()
    def maps(self, net, image): # those of strides 4 to 32
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float()/255
        return [m for m in net.encoder((x-net.mean)/net.std) if 4<=x.shape[2]//m.shape[2]<=32]

def train_points(P, stems, n, seed, steps=350):
    "A classifier of the points of some photos"
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(P.held.shape[2], 96), nn.ReLU(), nn.Dropout(.2), nn.Linear(96, n))
    opt,rows = torch.optim.AdamW(net.parameters(), weight_decay=.05),torch.tensor([P.row[s] for s in stems])
    cycle = torch.optim.lr_scheduler.OneCycleLR(opt, 4e-3, total_steps=steps)
    for _ in range(steps):
        i,at = rows[torch.randint(len(rows), (1024,))],torch.randint(P.truth.shape[1], (1024,))
        loss = F.cross_entropy(net(P.held[i,at].float()), P.truth[i,at], ignore_index=255)
        opt.zero_grad()
        loss.backward()
        opt.step()
        cycle.step()
    return net.eval()

@torch.inference_mode()
def judge_points(P, net, stems, n):
    "Confusion matrices of photos"
    return np.stack([confusion(P.truth[k], net(P.held[k].float()).argmax(1), n) for k in (P.row[s] for s in stems)])

class Probe(Trial):
    "The same with a classifier of points, which is trained in seconds"
    points = None

    def train(self, way, k, steps=350):
        if not Probe.points: Probe.points = Points(self.data, self.a.weights)
        P,C,train = self.points,self.data.classes.n,self.choose(way, k)
        self.net = train_points(P, train, C, self.seed, steps)
        matrices = judge_points(P, self.net, self.held, C)
        miou = score_intervals(matrices)['miou'].value
        torch.save(self.net, self.weights(way, k, new=True))
        self.file(way, k).write_text(json.dumps(dict(train=train, miou=miou, matrices=matrices.tolist())))
        print(f'seed {self.seed} {way} {len(train)} photos: mIoU {miou:.3f}', flush=True)

    def weights(self, way, k, new=False):
        if new: self.file(way, k).parent.mkdir(parents=True, exist_ok=True)
        return self.file(way, k).with_suffix('.pt')

    @torch.inference_mode()
    def chances(self, s): return self.net.eval()(self.points.held[self.points.row[s]].float()).softmax(1)

    def choose(self, way, k):
        if k and way!='chance': self.net = torch.load(self.weights(way if k>1 else 'start', k-1), weights_only=False)
        return super().choose(way, k)

    def by_entropy(self, way, k, free):
        mean = {s: -(p*p.clamp(min=1e-9).log()).sum().item() for s in free for p in [self.chances(s)]}
        return sorted(free, key=lambda s: -mean[s])[:ADD]

    def by_next(self, way, k):
        have,P = set(self.done(way, k-1)['train']),self.points
        rows,there = [P.row[s] for s in self.pool],np.array([s in have for s in self.pool])
        doubt = np.stack([(p*(1-p)).mean(0).numpy() for p in map(self.chances, self.pool)])
        found = choose(P.looks[rows], part_of_doubt(doubt).mean(1), P.place[rows], there, ADD)
        return [self.pool[k] for k,*_ in found]

def confusion(truth, answer, n): # (n, n) `[true, predicted]`
    ok = truth!=255
    return np.bincount((truth[ok]*n+answer[ok]).numpy(), minlength=n*n).reshape(n, n)

def jobs(a, data): # all trainings: trial, way, round
    for seed in map(int, a.seeds.split(',')):
        trial = (Probe if a.probe else Trial)(a, data, seed)
        yield from ((trial, w, k) for k in range(ROUNDS+1) for w in a.ways.split(',') if k or w==a.ways.split(',')[0])

def done_trials(a, data): # seeds of which all trainings are done
    for seed in map(int, a.seeds.split(',')):
        trial = (Probe if a.probe else Trial)(a, data, seed)
        if all(t.file(w, k).exists() for t,w,k in jobs(a, data) if t.seed==seed): yield trial

def read(trials, way, k): # (seeds' scores, matrices of all photos held back one after the other, names of their places)
    found = [t.done(way, k) for t in trials]
    return [f['miou'] for f in found],np.concatenate([np.array(f['matrices']) for f in found])

def report(a, data):
    "The table, of the seeds that are done"
    trials,place = list(done_trials(a, data)),data.places(progress=False).place
    if not trials: return
    groups = [f'{t.seed} {place[s]}' for t in trials for s in t.held]
    lines = ['# What to label next', '', '| photos | way | mIoU of each seed | mean | of all seeds together | better than chance by | places with labels |', '|---|---|---|---|---|---|---|']
    for k in range(ROUNDS+1):
        for way in a.ways.split(',') if k else ['start']:
            miou,matrices = read(trials, way, k)
            sure = score_intervals(matrices, groups)['miou']
            gain = difference_intervals(read(trials, 'chance', k)[1], matrices, groups)['miou'] if way not in ('start','chance') else ''
            seen = np.mean([len({place[s] for s in t.done(way, k)['train']}) for t in trials])
            cells = [ADD*(k+1), way, ' / '.join(f'{m:.3f}' for m in miou), f'{np.mean(miou):.3f}', sure, gain, f'{seen:.0f}']
            lines.append(f"| {' | '.join(map(str, cells))} |")
    half = difference_intervals(read(trials, 'chance', 2)[1], read(trials, 'next', 1)[1], groups)['miou']
    names = {a.data: 'DATA', a.weights: 'WEIGHTS', str(a.work): 'WORK', a.out: 'OUT'}
    told = ' '.join(names.get(x, x) for x in sys.argv[1:])
    how = 'points on a frozen encoder (--probe)' if a.probe else f'`{a.recipe}` at {a.size}, {a.steps} steps of each training'
    about = f"`python benchmarks/next.py {told}` on {open_dataset(a.data).name}, photos reduced to 256x384: {how}."
    notes = [f"20 photos added by next beside 40 added by chance, half of the cost: mIoU {half} more (less, where negative).",
             "Intervals: 95 %, over the places held back (the same place in two seeds counts twice, so they are somewhat too narrow);",
             "they say nothing of another draw of the first photos or of another training, of which the columns of seeds give an idea."]
    Path(a.out).write_text('\n'.join([*lines, '', about, *notes, '']))

def main():
    a = parse()
    torch.set_num_threads(1)
    data = reduced(open_dataset(a.data), a.work/'photos')
    for trial,way,k in jobs(a, data):
        if trial.file(way, k).exists(): continue
        trial.train(way, k)
        if a.one: return
    report(a, data)
    if a.one: sys.exit(3)

if __name__=='__main__': main()
