"""How well a training step's memory is estimated: the highest memory of this process against `pass_bytes`

    python benchmarks/memory.py fpn tf_efficientnet_lite0 4 256 384 bf16     # one process per case; Linux only
"""
import sys, torch
from drone_seg.models.memory import pass_bytes
from drone_seg.models.zoo import create_model
from drone_seg.train.precision import depthwise_in_float32
from drone_seg.train.losses import seg_loss
from fastai.optimizer import Adam
name,enc,b,h,w,amp = sys.argv[1:7]; amp = torch.bfloat16 if amp=='bf16' else None
net = depthwise_in_float32(create_model(name, enc, 22, None).to(memory_format=torch.channels_last)).train()
shape = (int(b),3,int(h),int(w)); opt = Adam(list(net.parameters()), lr=1e-3)
peak = pass_bytes(net, shape, amp=amp); weights = sum(4*p.numel() for p in net.parameters()) # SegLearner.memory_estimate adds them up in the same way
def stat(k): return int(next(l for l in open('/proc/self/status') if l.startswith(k)).split()[1])*1024
x = torch.rand(shape); y = torch.randint(0, 22, (shape[0], *shape[2:])); loss = seg_loss('ce + lovasz')
base = stat('VmRSS'); open('/proc/self/clear_refs','w').write('5')
for _ in range(2):
    with torch.autocast('cpu', torch.bfloat16, enabled=amp is not None): out = net(x)
    loss(out.float(), y).backward(); opt.step(); opt.zero_grad()
real = stat('VmHWM')-base
need = 1.25*(peak+weights)+2*weights
print(f"{name} on {enc}, {shape[0]} photos of {shape[2]}x{shape[3]}, {'bf16' if amp else 'fp32'}: estimated {need/1e6:.0f} MB, was {real/1e6:.0f} MB, {need/real:.2f}")
