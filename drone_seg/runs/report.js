// Switches all pictures between four views, and shows one of them large. Without it all four views stand side by side.
(() => {
  const root = document.documentElement, large = document.getElementById('large')
  const photos = [...document.querySelectorAll('.shot')], buttons = [...document.querySelectorAll('[data-view][aria-pressed]')]
  const views = [...new Set(buttons.map(b => b.dataset.view))]
  let at = 0

  function show(view) {
    root.dataset.view = view
    for (const b of buttons) b.setAttribute('aria-pressed', b.dataset.view === view)
    draw()
  }
  function draw() {
    if (!large.open) return
    const from = photos[at].querySelector(`.${root.dataset.view} img`), to = large.querySelector('img')
    to.src = from.src
    to.alt = from.alt
    large.querySelector('p').textContent = photos[at].querySelector('figcaption').textContent
  }
  function open(i) {
    at = (i + photos.length) % photos.length
    if (!large.open) large.showModal()
    draw()
  }

  root.classList.add('js')
  for (const b of buttons) b.addEventListener('click', () => show(b.dataset.view))
  photos.forEach((p, i) => p.querySelector('.open').addEventListener('click', () => open(i)))
  for (const b of large.querySelectorAll('.step')) b.addEventListener('click', () => open(at + Number(b.dataset.step)))
  large.querySelector('.close').addEventListener('click', () => large.close())
  large.addEventListener('click', e => { if (e.target === large) large.close() })
  document.addEventListener('keydown', e => {
    if (e.ctrlKey || e.metaKey || e.altKey) return
    if (views[e.key - 1]) show(views[e.key - 1])
    const step = { ArrowLeft: -1, ArrowRight: 1 }[e.key]
    if (step && large.open) { e.preventDefault(); open(at + step) }
  })
})()
