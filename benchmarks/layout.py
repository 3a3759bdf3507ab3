"""How photos and weights lie in memory: channels_last against the usual order, in both precisions, for training and for prediction

    python benchmarks/layout.py [--rounds 5] [--batch 4] [--size 256 384]

Two kinds of processor: this one, and one with AVX2 and no bfloat16, imitated in a process of its own by `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2`. Random weights, one
thread. Each round times every layout and precision once, so a slow minute harms all of them; given is the median of processor seconds, which other programs do not change.
Depthwise convolutions train in float32, as `seg_learner` has it.
"""
import argparse, json, os, statistics, subprocess, sys, time
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1')
AVX2 = dict(ATEN_CPU_CAPABILITY='avx2', ONEDNN_MAX_CPU_ISA='AVX2')
NETWORKS = dict(unet=('tf_efficientnet_lite0','resnet18'), fpn=('tf_efficientnet_lite0',), segformer=('tf_efficientnet_lite0',))

def parse():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--batch', type=int, default=4)
    p.add_argument('--size', type=int, nargs=2, default=(256, 384))
    p.add_argument('--out', default=str(Path(__file__).parent/'results'/'layout.md'))
    p.add_argument('--measure', action='store_true', help='measure in this process, and print JSON')
    return p.parse_args()

class Case:
    "A network in one layout and one precision"
    def __init__(self, net, layout, bf16, a):
        import torch
        self.net,self.bf16 = net.to(memory_format=layout),bf16
        self.x = torch.rand(a.batch, 3, *a.size).contiguous(memory_format=layout)
        self.y = torch.randint(22, (a.batch, *a.size))

    def forward(self, x):
        import torch
        with torch.autocast('cpu', torch.bfloat16, enabled=self.bf16): return self.net(x).float()

    def predict(self): # a window at a time, as prediction does on a CPU
        import torch
        self.net.eval()
        with torch.inference_mode():
            for x in self.x: self.forward(x[None])

    def train(self):
        from torch.nn import functional as F
        self.net.train()
        F.cross_entropy(self.forward(self.x), self.y).backward()
        self.net.zero_grad()

def measure(network, encoder, a):
    "{(pass, precision, layout): processor seconds per photo}"
    import torch
    from copy import deepcopy
    from drone_seg.models.zoo import create_model
    from drone_seg.models.memory import has_fast_bf16
    from drone_seg.train.precision import depthwise_in_float32
    torch.manual_seed(0)
    net = depthwise_in_float32(create_model(network, encoder, 22, weights=None))
    cases,times = {},{}
    for precision in ['fp32'] + ['bf16']*has_fast_bf16():
        for layout in ('contiguous_format','channels_last'):
            case = Case(deepcopy(net), getattr(torch, layout), precision=='bf16', a)
            for name in ('train','predict'): cases[f'{name} {precision} {layout}'] = getattr(case, name)
    for r in range(a.rounds+1): # the first only warms up
        for name,run in cases.items():
            start = time.process_time()
            run()
            if r: times.setdefault(name, []).append((time.process_time()-start)/a.batch)
    return {name:statistics.median(t) for name,t in times.items()}

def measure_all(a):
    import torch
    torch.set_num_threads(1)
    if os.environ.get('ATEN_CPU_CAPABILITY')=='avx2': torch.cpu._is_avx512_bf16_supported = lambda: False # it asks the processor, which cannot be imitated
    return {f'{n} on {e}':measure(n, e, a) for n,encoders in NETWORKS.items() for e in encoders}

def measure_apart(env):
    done = subprocess.run([sys.executable, __file__, '--measure', *sys.argv[1:]], env=os.environ | env, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])

def table(found):
    lines = ['network | pass | precision | usual order, s | channels_last, s | channels_last takes', '---|---|---|---:|---:|---:']
    for network,times in found.items():
        for name in dict.fromkeys(k.rpartition(' ')[0] for k in times):
            usual,last = times[f'{name} contiguous_format'],times[f'{name} channels_last']
            lines.append(f"{network} | {' | '.join(name.split())} | {usual:.3f} | {last:.3f} | {last/usual:.2f}")
    return lines

REPORTED = """
What is imitated has this machine's caches. On one of AMD's with AVX2 a training step in float32 took, in seconds a photo, .62 in the usual order and .88 with channels_last for
the U-Net on lite0, .64 and .94 on resnet18, .64 and .72 for the FPN on lite0.
On another of AMD's with AVX2, at 192x288, a training step took, in the usual order and with channels_last: SegFormer .316 and .249, FPN .498 and .534, U-Net .558 and .627, DeepLabV3+ .557 and
.551, UPerNet 1.749 and 2.784, PSPNet .178 and .164, all on lite0 (median of 3 rounds, other programs beside it)."""

def model_name():
    try: return next(l.partition(': ')[2] for l in Path('/proc/cpuinfo').read_text().splitlines() if l.startswith('model name'))
    except (OSError, StopIteration): return 'unknown processor'

def main():
    a = parse()
    if a.measure: return print(json.dumps(measure_all(a)))
    import torch
    lines = [f"Seconds of one core per photo of {a.size[0]}x{a.size[1]}, batch {a.batch} in training and 1 in prediction, median of {a.rounds} rounds, torch {torch.__version__}, one thread; `python benchmarks/layout.py`"]
    for title,env in ((f"{torch.backends.cpu.get_cpu_capability()}: {model_name()}", {}), ("AVX2 without bfloat16, imitated on the same machine", AVX2)):
        lines += ['', f'## {title}', '', *table(measure_apart(env))]
    lines.append(REPORTED)
    print('\n'.join(lines))
    Path(a.out).write_text('\n'.join(lines) + '\n')

if __name__=='__main__': main()
