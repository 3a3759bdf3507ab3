"Bars on a real terminal, and nothing of them in files"
import fcntl, os, pty, struct, subprocess, sys, termios
import pytest

JOB = "import time; from drone_seg.files import track; [time.sleep(.4) for _ in track(range(4), 'looking')]; print('done')"

def read_all(fd):
    res = b''
    while True:
        try: part = os.read(fd, 4096)
        except OSError: return res.decode() # the terminal's other end is closed
        if not part: return res.decode()
        res += part

@pytest.mark.parametrize('watched', [True, False])
def test_a_bar_is_drawn_where_standard_error_is_a_terminal(watched, tmp_path):
    "Standard output is a file in both cases: the bar does not go there"
    outer,inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack('4H', 24, 80, 0, 0))
    with open(tmp_path/'err', 'wb') as f:
        p = subprocess.Popen([sys.executable, '-c', JOB], stdout=subprocess.PIPE, stderr=inner if watched else f)
        os.close(inner)
        out = p.communicate()[0].decode()
    shown = read_all(outer)
    os.close(outer)
    assert out=='done\n' and (tmp_path/'err').read_bytes()==b''
    assert ('looking' in shown and '3/4' in shown)==watched
