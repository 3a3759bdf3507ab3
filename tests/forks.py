"""Programs in processes of their own that do not import torch and drone_seg anew, which takes longer than most of them.

`python forks.py` imports everything, trains nothing, and forks itself for each program it is told of: one line of JSON in, one out."""
import json, os, signal, subprocess, sys, tempfile, traceback
from pathlib import Path
from types import SimpleNamespace

def _run(code, args, out, err, timeout):
    "The program in this process, which ends with it"
    for path,fd in ((os.devnull, 0), (out, 1), (err, 2)): os.dup2(os.open(path, os.O_RDWR), fd)
    signal.alarm(timeout)
    sys.argv,status = ['-c', *args],1
    try:
        exec(compile(code, '<program>', 'exec'), {'__name__': '__main__'})
        status = 0
    except SystemExit as e:
        status = e.code or 0
        if isinstance(status, str): # sys.exit('what went wrong')
            print(status, file=sys.stderr)
            status = 1
    except BaseException: traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

def serve():
    import drone_seg.all, fastai.vision.all, torch.distributed
    lines,answers = os.fdopen(os.dup(0)),os.fdopen(os.dup(1), 'w')
    for line in lines:
        what,*given = json.loads(line)
        if what=='wait': answer = os.waitstatus_to_exitcode(os.waitpid(*given, 0)[1])
        else:
            answer = os.fork()
            if not answer: _run(*given)
        print(json.dumps(answer), file=answers, flush=True)

class Forks:
    "Starts programs in forks of one process; each takes at most `timeout` seconds"
    def __init__(self, timeout=900):
        self.timeout = timeout
        paths = [str(Path(__file__).parents[1]), os.environ.get('PYTHONPATH', '')]
        env = os.environ | dict(PYTHONPATH=os.pathsep.join(paths).strip(os.pathsep))
        self.server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def _ask(self, *what):
        print(json.dumps(what), file=self.server.stdin, flush=True)
        return json.loads(self.server.stdout.readline())

    def run(self, *programs):
        "Runs programs, each a tuple of code and arguments, beside each other; how each ended and what it printed"
        with tempfile.TemporaryDirectory() as folder:
            files = [[str(Path(folder)/f'{i}.{kind}') for kind in ('out','err')] for i in range(len(programs))]
            for f in sum(files, []): Path(f).touch()
            pids = [self._ask('run', code, [str(a) for a in args], *f, self.timeout) for (code,*args),f in zip(programs, files)]
            ends = [self._ask('wait', pid) for pid in pids]
            return [SimpleNamespace(returncode=e, stdout=Path(out).read_text(), stderr=Path(err).read_text()) for e,(out,err) in zip(ends, files)]

    def close(self):
        self.server.stdin.close()
        self.server.wait()

if __name__=='__main__': serve()
