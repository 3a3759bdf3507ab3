"""One training step of our U-Net and of its peers, side by side (SPEED gates: at most 1.1x smp.Unet on the same encoder, at least 3x as fast as fastai's DynamicUnet on
resnet34; the less an encoder's last maps have channels, the less DynamicUnet wastes).

    python benchmarks/steps.py [--size 256] [--batch 4] [--rounds 5] [--classes 22]

Forward, cross-entropy, backward and the AdamW step, with random weights, on one thread. Each round times every network once, so a slow minute hits all of them; given is the
median of processor milliseconds, which other programs on the machine do not change. float32 as PyTorch makes the tensors, and what `unet_learner` does on a CPU with
bfloat16 in hardware (channels_last, bfloat16, depthwise convolutions in float32); the peers get the same there, but for the last.
"""
import argparse, os, statistics, time
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1')

def parse():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--size', type=int, default=256)
    p.add_argument('--batch', type=int, default=4)
    p.add_argument('--classes', type=int, default=22)
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--encoders', nargs='*', default=['resnet34', 'mobilenetv2_100', 'tf_efficientnet_lite0'], help='timm names')
    p.add_argument('--out', default=str(Path(__file__).parent/'results'/'steps.md'))
    return p.parse_args()

def dynamic_unet(encoder, a):
    "fastai's own, on the stem and stages as top-level children, where it looks for skips"
    import timm
    from torch import nn
    from fastai.vision.models.unet import DynamicUnet
    m = timm.create_model(encoder)
    parts = ([nn.Sequential(m.conv1, m.bn1, m.act1), m.maxpool, m.layer1, m.layer2, m.layer3, m.layer4] if hasattr(m, 'layer1')
             else [m.conv_stem, m.bn1, *m.blocks])
    return DynamicUnet(nn.Sequential(*parts), a.classes, (a.size,)*2)

def networks(encoder, a):
    import segmentation_models_pytorch as smp
    from drone_seg.models.zoo import create_model
    tu = dict(encoder_name=f'tu-{encoder}', encoder_weights=None, classes=a.classes)
    return {'drone_seg U-Net':create_model('unet', encoder, a.classes, weights=None), 'drone_seg FPN':create_model('fpn', encoder, a.classes, weights=None), 'smp.Unet':smp.Unet(**tu), 'fastai DynamicUnet':dynamic_unet(encoder, a),
            'smp.Linknet':smp.Linknet(**tu), 'smp.DeepLabV3Plus':smp.DeepLabV3Plus(**tu), 'smp.UnetPlusPlus':smp.UnetPlusPlus(**tu)}

class Step:
    "A network with its optimiser; calling it is one step"
    def __init__(self, net, a, bf16):
        import torch
        torch.manual_seed(0)
        cl = torch.channels_last if bf16 else torch.contiguous_format
        self.net,self.bf16 = net.train().to(memory_format=cl),bf16
        self.opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
        self.x = torch.rand(a.batch, 3, a.size, a.size).contiguous(memory_format=cl)
        self.y = torch.randint(a.classes, (a.batch, a.size, a.size))

    def __call__(self):
        import torch, torch.nn.functional as F
        t = time.process_time()
        with torch.autocast('cpu', torch.bfloat16, enabled=self.bf16): logits = self.net(self.x)
        F.cross_entropy(logits.float(), self.y).backward()
        self.opt.step(); self.opt.zero_grad()
        return 1000*(time.process_time()-t)

def measure(encoder, a, bf16):
    from drone_seg.train.precision import depthwise_in_float32
    nets = networks(encoder, a)
    if bf16:
        for n in ('drone_seg U-Net', 'drone_seg FPN'): depthwise_in_float32(nets[n])
    steps,times = {n:Step(m, a, bf16) for n,m in nets.items()},{n:[] for n in nets}
    for s in steps.values(): s()
    for _ in range(a.rounds):
        for n,s in steps.items(): times[n].append(s())
    return {n:(statistics.median(t), sum(p.numel() for p in nets[n].parameters())/1e6) for n,t in times.items()}

def main():
    import torch
    from drone_seg.models.memory import has_fast_bf16
    torch.set_num_threads(1)
    a,lines,ok = parse(),[],True
    for encoder in a.encoders:
        for bf16 in ([False, True] if has_fast_bf16() else [False]):
            got = measure(encoder, a, bf16)
            ours,plain,dyn = (got[n][0] for n in ('drone_seg U-Net', 'smp.Unet', 'fastai DynamicUnet'))
            held = ours<=1.1*plain and (encoder!='resnet34' or 3*ours<=dyn)
            ok &= held
            lines += [f"## {encoder}, {'bfloat16, channels_last' if bf16 else 'float32'}\n", 'network | ms per step | of smp.Unet | M parameters', '---|---:|---:|---:',
                      *(f'{n} | {t:.0f} | {t/plain:.2f} | {p:.2f}' for n,(t,p) in sorted(got.items(), key=lambda o: o[1][0])),
                      f"\n{'Gate holds' if held else 'GATE MISSED'}: {ours/plain:.2f} of smp.Unet (at most 1.1), {dyn/ours:.1f} times as fast as DynamicUnet (at least 3 on resnet34).\n"]
            print('\n'.join(lines[-13:]), flush=True)
    head = f"{a.size}x{a.size}, batch {a.batch}, {a.classes} classes, one thread, median of {a.rounds} rounds; `python benchmarks/steps.py`\n"
    Path(a.out).write_text('\n'.join([head, *lines]))
    raise SystemExit(not ok)

if __name__=='__main__': main()
