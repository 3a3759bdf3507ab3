"""What each backbone gives a U-Net: pyramid, parameters, memory and time of a training step, and whether the network can be copied, exported and compiled.

    OMP_NUM_THREADS=1 python benchmarks/backbones.py              # all; rows that are there already are kept
    OMP_NUM_THREADS=1 python benchmarks/backbones.py --only mit   # names with 'mit' in them, measured anew
    python benchmarks/backbones.py --no-export                    # without the slow half (export, ONNX, compile)

Writes results/backbones.json (one record per backbone) and results/backbones.md (the table). Definitions stand under the table."""
import argparse, copy, json, sys, tempfile, time, warnings
from pathlib import Path
import torch
from torch import nn
from drone_seg.models.unet import create_unet

RESULTS = Path(__file__).parent/'results'
BACKBONES = """resnet18 resnet50 resnext50_32x4d regnety_004 efficientnet_b0 tf_efficientnet_lite0 mobilenetv2_100 mobilenetv3_large_100
mobilenetv4_conv_small convnext_atto convnext_tiny.dinov3_lvd1689m densenet121 vgg11_bn hrnet_w18_small
torchvision/vgg16_bn torchvision/densenet121 torchvision/efficientnet_b0 torchvision/convnext_tiny torchvision/mobilenet_v3_large
torchvision/resnet34 torchvision/swin_v2_t
swinv2_tiny_window8_256 swin_tiny_patch4_window7_224 pvt_v2_b0 sam2_hiera_tiny tiny_vit_5m_224 mit_b0 davit_tiny twins_svt_small
nextvit_small efficientvit_b0 poolformer_s12
vit_tiny_patch16_224 deit3_small_patch16_224 vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2 vit_small_patch16_dinov3""".split()

def saved_bytes(net, step):
    "Bytes of the distinct storages that autograd keeps for the backward pass of `step`, parameters and buffers apart"
    own = {t.untyped_storage().data_ptr() for t in [*net.parameters(), *net.buffers()]}
    seen = {}
    def pack(t):
        s = t.untyped_storage()
        if s.data_ptr() not in own: seen[s.data_ptr()] = s.nbytes()
        return t
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t): step()
    return sum(seen.values())

@torch.no_grad()
def wake(net):
    "Weights that start at exactly 0 (the last scale of a residual branch in timm's ResNets) hold back every gradient behind them; move those a little"
    for p in net.parameters():
        if not p.any(): nn.init.normal_(p, std=.1)
    return net

def measure(arch, size=256, bs=2, odd_sizes=((31,45), (97,65), (131,300)), rounds=2):
    "Pyramid, parameters, memory, CPU time per step, gradient, copy, odd sizes"
    torch.manual_seed(0)
    net = wake(create_unet(arch, 22, block='plain')).train()
    x = torch.rand(bs, 3, size, size)
    loss = lambda: net(x).square().mean()
    start,kept = time.process_time(),[]
    mem = saved_bytes(net, lambda: kept.append(loss()))
    kept.pop().backward()
    times = [time.process_time()-start]
    without = [n for n,p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()>0]
    twin = copy.deepcopy(net).eval(); net.eval()
    with torch.no_grad():
        same = torch.equal(twin(x[:1,:,:64,:64]), net(x[:1,:,:64,:64]))
        odd = all(net(torch.rand(1,3,h,w)).shape==(1,22,h,w) for h,w in odd_sizes)
    net.train()
    for _ in range(rounds-1):
        net.zero_grad()
        start = time.process_time()
        loss().backward()
        times.append(time.process_time()-start)
    n = sum(p.numel() for p in net.parameters())
    return dict(pyramid=net.pyramid, skips=len({s for _,s in net.pyramid})-1 or 'ViT', parameters=n, memory=mem+8*n, ms=1000*min(times),
                without_gradient=without, copy=same, odd=odd)

def exports(arch, h=64, w=96, change=lambda net: net):
    "'ok' or the first line of what was raised, for torch.export, ONNX against onnxruntime, and a compile without graph breaks"
    torch.manual_seed(0); torch._dynamo.reset()
    net,x,res = change(create_unet(arch, 5)).eval(),torch.rand(1,3,h,w),{}
    with torch.no_grad(): want = net(x)
    def export():
        res['program'] = torch.export.export(net, (x,))
        torch.testing.assert_close(res['program'].module()(x), want, rtol=1e-4, atol=1e-4)
    def onnx():
        import onnxruntime
        with tempfile.TemporaryDirectory() as d:
            torch.onnx.export(res.get('program') or net, (x,), f'{d}/net.onnx', dynamo=True, verbose=False)
            got = onnxruntime.InferenceSession(f'{d}/net.onnx', providers=['CPUExecutionProvider']).run(None, {'x':x.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-3, atol=1e-3)
    def compile():
        with torch.no_grad(): torch.testing.assert_close(torch.compile(net, fullgraph=True, backend='eager')(x), want, rtol=1e-4, atol=1e-4)
    for f in (export, onnx, compile):
        try: f(); res[f.__name__] = 'ok'
        except Exception as e: res[f.__name__] = f"{type(e).__name__}: {(str(e).splitlines() or [''])[0][:120]}"
    res.pop('program', None)
    return res

def table(rows):
    "The records as a Markdown page"
    mark = lambda r,k: {None:'', 'ok':'yes', True:'yes', False:'NO'}.get(r.get(k), 'no')
    out = ["# Backbones", "", f"`python benchmarks/backbones.py`, torch {torch.__version__}, {len(rows)} backbones, U-Net of 22 classes with plain blocks; export, ONNX and compile with residual ones, the default.", "",
           "| backbone | pyramid (channels/stride) | skips | parameters, M | memory, MB | ms per step | every gradient | copy | odd sizes | export | ONNX | compile |",
           "|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for a,r in rows.items():
        out.append(f"| {a} | {' '.join(f'{c}/{s}' for c,s in r['pyramid'])} | {r['skips']} | {r['parameters']/1e6:.1f} | {r['memory']/2**20:.0f} | {r['ms']:.0f} | "
                   + ' | '.join(['no' if r['without_gradient'] else 'yes', *(mark(r, k) for k in ('copy', 'odd', 'export', 'onnx', 'compile'))]) + ' |')
    out += ["", "Skips: maps finer than the coarsest; ViT: four maps of one stride, resampled (`Reassemble`). Memory: weights, gradients, and the distinct "
            "storages that autograd keeps for the backward pass, float32, 2 images of 256x256. ms per step: process CPU time of a forward and backward pass of "
            "the same batch, one thread, the better of two. Odd sizes: 31x45, 97x65, 131x300. Copy: `copy.deepcopy` after a backward pass gives the same logits. "
            "Export: `torch.export`; ONNX: logits of onnxruntime within 1e-3; compile: `fullgraph=True`, eager backend; at 64x96. Empty: not run.", ""]
    for a,r in rows.items():
        if r['without_gradient']: out.append(f"- {a}: no gradient in {', '.join(r['without_gradient'])}")
        out += [f"- {a}, {k}: {r[k]}" for k in ('export', 'onnx', 'compile') if r.get(k, 'ok')!='ok']
    return '\n'.join(out)+'\n'

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', default='', help='measure names with this text in them anew')
    p.add_argument('--no-export', action='store_true')
    args = p.parse_args()
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    file = RESULTS/'backbones.json'
    rows = json.loads(file.read_text()) if file.exists() else {}
    for arch in BACKBONES:
        if args.only and args.only not in arch: continue
        row = {} if args.only else rows.get(arch, {})
        try:
            if 'ms' not in row: row.update(measure(arch))
            if not args.no_export and 'onnx' not in row: row.update(exports(arch))
        except Exception as e: print(f'{arch}: {type(e).__name__}: {e}', flush=True); continue
        rows[arch] = row
        print(arch, {k:v for k,v in row.items() if k!='pyramid'}, flush=True)
        RESULTS.mkdir(exist_ok=True)
        rows = {a:rows[a] for a in BACKBONES if a in rows}
        file.write_text(json.dumps(rows)); (RESULTS/'backbones.md').write_text(table(rows))

if __name__=='__main__': main()
