"60_predict.windows: covers, weights and band blending against slow and obvious versions, over many sizes"
import numpy as np, pytest, torch
from drone_seg.fields import PredictError
from drone_seg.predict.windows import window_starts, cover_size, cosine_weights, axis_weights, blend_windows

torch.set_num_threads(1)
OVERLAPS = (0, .1, .25, .5, .75, .9)

def sizes(n, seed=0, hi=90):
    g = np.random.default_rng(seed)
    for _ in range(n):
        H,W,h,w = (int(v) for v in g.integers(1, hi, 4))
        yield (H, W), (h, w), float(g.choice(OVERLAPS))

def full_blend(cover, said): # a float32 buffer of the whole picture
    (h,w),res = cover.window,torch.zeros(len(said[0]), *cover.padded)
    wy,wx = (torch.from_numpy(axis_weights(s, l)) for s,l in ((cover.ys, h), (cover.xs, w)))
    for k,(y,x) in enumerate(cover):
        i,j = divmod(k, len(cover.xs))
        res[:, y:y+h, x:x+w] += said[k]*(wy[i][:,None]*wx[j])
    return res

@pytest.mark.parametrize('overlap', OVERLAPS)
def test_starts_cover_every_axis(overlap):
    for length in range(1, 140):
        for window in (1, 2, 3, 7, 32, 64):
            s = window_starts(length, window, overlap)
            assert s[0]==0 and s[-1]==max(0, length-window) # first at 0, last flush
            steps = np.diff(s)
            assert (steps>0).all() # no window twice
            if len(s)>1:
                assert steps.max()-steps.min()<=1 # evenly spread
                assert steps.max()<=max(1, int(window*(1-overlap))) # overlap at least as asked, every pixel seen
                fewer = len(s)-2 # steps if there were one window less
                assert fewer==0 or fewer*max(1, int(window*(1-overlap)))<length-window

def test_cover_lists_windows_row_by_row():
    for size,window,overlap in sizes(100):
        c = cover_size(size, window, overlap)
        assert list(c)==[(y, x) for y in c.ys for x in c.xs] and len(list(c))==len(c)
        assert c.padded==tuple(map(max, size, window))
        seen = np.zeros(c.padded, int)
        for y,x in c: seen[y:y+window[0], x:x+window[1]] += 1
        assert seen.min()>=1
        for y,x in c: assert y>=0 and x>=0 and y+window[0]<=c.padded[0] and x+window[1]<=c.padded[1]

def test_weights_sum_to_one():
    for size,window,overlap in sizes(200, seed=1):
        c = cover_size(size, window, overlap)
        total = np.zeros(c.padded)
        wy,wx = axis_weights(c.ys, window[0]),axis_weights(c.xs, window[1])
        assert wy.min()>0 and wx.min()>0 and wy.dtype==np.float32
        for k,(y,x) in enumerate(c):
            i,j = divmod(k, len(c.xs))
            total[y:y+window[0], x:x+window[1]] += wy[i][:,None]*wx[j]
        np.testing.assert_allclose(total, 1, atol=2e-6)

def test_cosine_weights_are_symmetric_and_peak_in_the_middle():
    for n in (1, 2, 3, 8, 255, 256):
        w = cosine_weights(n)
        np.testing.assert_allclose(w, w[::-1]); assert w.min()>=1e-3 and w.max()<=1
        assert w.argmax() in (n//2, (n-1)//2)

def test_band_is_bit_identical_to_a_full_buffer():
    g = torch.Generator().manual_seed(0)
    for size,window,overlap in sizes(150, seed=2, hi=60):
        c = cover_size(size, window, overlap)
        said = [torch.randn(3, *window, generator=g)*10 for _ in c]
        rows,at = [],0
        for r in blend_windows(c, said):
            assert r.start==at; at += r.block.shape[1] # each row once, in order, none left out
            rows.append(r.block.clone())
        assert at==c.padded[0]
        assert torch.equal(torch.cat(rows, 1), full_blend(c, said))

def test_rows_are_handed_out_as_soon_as_no_later_window_reaches_them():
    c = cover_size((100, 50), (20, 20), .5)
    came = []
    def windows():
        for k in range(len(c)):
            came.append(k)
            yield torch.ones(1, 20, 20)
    for i,rows in enumerate(blend_windows(c, windows())):
        assert len(came)==(i+1)*len(c.xs)
        assert rows.start+rows.block.shape[1]==(c.ys[i+1] if i+1<len(c.ys) else 100)

@pytest.mark.parametrize('height', (100, 1000, 10000))
def test_memory_does_not_grow_with_height(height):
    c = cover_size((height, 70), (32, 32))
    for r in blend_windows(c, (torch.zeros(5, 32, 32) for _ in c)): assert r.block.untyped_storage().nbytes()==5*32*70*4

def test_low_precision_logits_are_blended_in_float32():
    c = cover_size((40, 40), (16, 16), .5)
    said = [torch.randn(2, 16, 16).bfloat16() for _ in c]
    got = torch.cat([r.block.clone() for r in blend_windows(c, said)], 1)
    assert got.dtype==torch.float32 and torch.equal(got, full_blend(c, [s.float() for s in said]))

def test_one_window_keeps_its_logits_exactly():
    x = torch.randn(4, 33, 47)
    (rows,) = blend_windows(cover_size((33, 47), (33, 47)), [x])
    assert torch.equal(rows.block, x)

@pytest.mark.parametrize('n', (0, 2))
def test_each_window_comes_once(n):
    with pytest.raises(ValueError): list(blend_windows(cover_size((4, 4), (4, 4)), [torch.zeros(1, 4, 4)]*n))

def test_aligned_starts():
    for length in (1, 31, 40, 41, 64, 100, 129, 500, 4000, 6000):
        for window in (20, 40, 96, 256, 384, 512):
            for overlap in (0, .25, .6, .95):
                for align in (1, 8, 32):
                    s = window_starts(length, window, overlap, align)
                    step = max(1, int(window*(1-overlap)))
                    assert s[0]==0 and s[-1]==max(0, length-window) and all(0<b-a<=step for a,b in zip(s, s[1:]))
                    if step//align*align>=.9*step: assert all(v%align==0 for v in s[:-1])
                    if align==1: assert s==window_starts(length, window, overlap)
