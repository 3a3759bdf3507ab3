"A headless Chromium, spoken to over two pipes by its DevTools protocol: no driver, no port, no further package"
import json, os, shutil, subprocess, sys, tempfile, time

CHROMIUM = next(filter(None, map(shutil.which, ('chromium','chromium-browser','google-chrome','google-chrome-stable'))), None)
WHY_NOT = None if CHROMIUM and sys.platform!='win32' else 'no Chromium is installed here'

class Browser:
    "One page at a time; what went wrong in it is in `problems`"
    def __init__(self):
        self.home,self.problems,self.number = tempfile.mkdtemp(prefix='browser'),[],0
        to_it,self.out = os.pipe()
        self.back,from_it = os.pipe()
        flags = f'--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe --user-data-dir={self.home}'
        cmd = ['bash', '-c', f'exec "$0" "$@" 3<&{to_it} 4>&{from_it}', CHROMIUM, *flags.split(), 'about:blank']
        self.process = subprocess.Popen(cmd, pass_fds=(to_it,from_it), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_it)
        os.close(from_it)
        self.rest,self.session = [b''],None # what has come of the next message
        target = next(t['targetId'] for t in self.call('Target.getTargets')['targetInfos'] if t['type']=='page')
        self.session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page','Runtime','Log','Network'): self.call(f'{domain}.enable')

    def _message(self): # the next one; problems are kept
        while b'\0' not in self.rest[-1]:
            self.rest.append(os.read(self.back, 1<<16))
            if not self.rest[-1]: raise RuntimeError('the browser has gone')
        text,_,rest = b''.join(self.rest).partition(b'\0')
        self.rest = [rest]
        m = json.loads(text)
        how,p = m.get('method'),m.get('params', {})
        if how=='Runtime.exceptionThrown': self.problems.append(p['exceptionDetails'].get('text', '') + str(p['exceptionDetails'].get('exception', {}).get('description')))
        if how=='Runtime.consoleAPICalled' and p['type'] in ('error','warning','assert'): self.problems.append(str(p['args']))
        if how=='Log.entryAdded' and p['entry']['level'] in ('error','warning'): self.problems.append(p['entry']['text'])
        if how=='Network.requestWillBeSent' and not p['request']['url'].startswith(('data:','file:','about:')): self.problems.append(f"asked the network for {p['request']['url']}")
        return m

    def call(self, method, **params):
        "Call a method of the protocol and wait for its answer"
        self.number += 1
        m = dict(id=self.number, method=method, params=params) | (dict(sessionId=self.session) if self.session else {})
        os.write(self.out, json.dumps(m).encode() + b'\0')
        while (m := self._message()).get('id')!=self.number: pass
        if 'error' in m: raise RuntimeError(f"{method}: {m['error']}")
        return m['result']

    def open(self, path, width=1280, height=900, dark=False, media=''):
        "Open a file or an address; how many seconds until it was loaded"
        self.problems.clear()
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=width<600)
        scheme = dict(name='prefers-color-scheme', value='dark' if dark else 'light')
        self.call('Emulation.setEmulatedMedia', media=media, features=[scheme])
        since = time.perf_counter()
        self.call('Page.navigate', url=path if '://' in str(path) else f'file://{path}')
        while self._message().get('method')!='Page.loadEventFired': pass
        return time.perf_counter()-since

    def run(self, code):
        "What a line of JavaScript gives"
        res = self.call('Runtime.evaluate', expression=code, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in res: raise RuntimeError(str(res['exceptionDetails']))
        return res['result'].get('value')

    def press(self, key, text=None):
        code = dict(Enter=13, Tab=9, Escape=27, ArrowLeft=37, ArrowRight=39).get(key, ord(key[0]))
        about = dict(key=key, code=key, windowsVirtualKeyCode=code)
        text = text or dict(Enter='\r').get(key, key if len(key)==1 else None)
        self.call('Input.dispatchKeyEvent', type='keyDown', **about, **(dict(text=text) if text else {}))
        self.call('Input.dispatchKeyEvent', type='keyUp', **about)

    def click(self, selector):
        "Click on the middle of an element"
        x,y = self.run(f"(() => {{ const o = document.querySelector({json.dumps(selector)}); o.scrollIntoView({{block:'center', behavior:'instant'}});"
                       " const r = o.getBoundingClientRect(); return [r.x+r.width/2, r.y+r.height/2] })()")
        for how in ('mousePressed','mouseReleased'): self.call('Input.dispatchMouseEvent', type=how, x=x, y=y, button='left', clickCount=1)

    def close(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.back, self.out): os.close(pipe)
        shutil.rmtree(self.home, ignore_errors=True)
