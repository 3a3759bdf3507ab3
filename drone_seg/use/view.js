// Draws what `shown` of use/view.py gives: photo, classes, how sure. Here alone, so that sliders answer at once.
const find = name => element.querySelector('.' + name);
const off = new Set(); // rows of classes that are not painted
let pictures = [], photo = null, turn = 0;

const load = src => new Promise((done, failed) => {
  const image = new Image();
  image.onload = () => done(image);
  image.onerror = failed;
  image.src = src;
});

function pixels(image) { // Uint8ClampedArray of (R, G, B, A)
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height).data;
}

function paint({canvas, marks}) {
  const strength = find('strength').value / 100, least = find('least').value;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  const out = context.createImageData(canvas.width, canvas.height), to = out.data;
  const colors = props.value.classes.map((c, row) => off.has(row) ? null : c.color);
  for (let i = 0; i < to.length; i += 4) {
    const r = photo[i], g = photo[i + 1], b = photo[i + 2], color = colors[marks[i]];
    to[i + 3] = 255;
    if (marks[i + 1] < least) to[i] = to[i + 1] = to[i + 2] = 110 + (r + g + b) / 8;
    else if (color) {
      to[i] = r + (color[0] - r) * strength;
      to[i + 1] = g + (color[1] - g) * strength;
      to[i + 2] = b + (color[2] - b) * strength;
    }
    else { to[i] = r; to[i + 1] = g; to[i + 2] = b; }
  }
  context.putImageData(out, 0, 0);
}

function paintAll() {
  find('strength-said').textContent = find('strength').value + ' %';
  find('least-said').textContent = find('least').value + ' %';
  pictures.forEach(paint);
}

function point(event) { // what lies under the pointer, in every picture
  const box = event.currentTarget.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
  if (x < 0 || y < 0 || x >= 1 || y >= 1) return;
  const said = pictures.map(({canvas, marks, title}) => {
    const at = 4 * (Math.floor(y * canvas.height) * canvas.width + Math.floor(x * canvas.width));
    const found = props.value.classes[marks[at]];
    const name = found ? `${found.name}, ${marks[at + 1]} % sure` : 'nothing known';
    return title ? `${title}: ${name}` : name;
  });
  find('under').textContent = said.join(' · ');
}

function addPicture(answer, image, marks) {
  const figure = document.createElement('figure'), canvas = document.createElement('canvas');
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', 'The photo with its classes painted over it');
  for (const kind of ['pointermove', 'pointerdown']) canvas.addEventListener(kind, point);
  if (answer.title) figure.appendChild(document.createElement('figcaption')).textContent = answer.title;
  figure.appendChild(canvas);
  find('pictures').appendChild(figure);
  pictures.push({canvas, marks, title: answer.title});
}

function addClass(found, row) {
  if (!found.seen) return;
  const line = find('classes').insertRow();
  const label = document.createElement('label'), box = document.createElement('input');
  const swatch = document.createElement('span');
  box.type = 'checkbox';
  box.checked = !off.has(row);
  box.addEventListener('change', () => {
    if (box.checked) off.delete(row); else off.add(row);
    paintAll();
  });
  swatch.className = 'swatch';
  if (found.color) swatch.style.background = `rgb(${found.color})`;
  else box.disabled = true;
  label.append(box, swatch, found.name);
  line.insertCell().append(label);
  for (const text of found.said) line.insertCell().textContent = text;
}

function addHeads() {
  const line = find('heads').insertRow();
  for (const text of props.value.heads) {
    const head = document.createElement('th');
    head.textContent = text;
    line.append(head);
  }
}

async function show() {
  const mine = ++turn, value = props.value;
  find('view').hidden = !value || !value.photo;
  if (find('view').hidden) return;
  const images = await Promise.all([value.photo, ...value.answers.map(a => a.marks)].map(load));
  if (mine !== turn) return; // another photo was chosen in the meantime
  photo = pixels(images[0]);
  pictures = [];
  for (const name of ['pictures', 'classes', 'heads']) find(name).replaceChildren();
  find('under').textContent = 'Point at the photo to see what is there.';
  find('view').classList.toggle('two', value.answers.length > 1);
  value.answers.forEach((answer, k) => addPicture(answer, images[k + 1], pixels(images[k + 1])));
  addHeads();
  value.order.forEach(row => addClass(value.classes[row], row));
  paintAll();
}

for (const name of ['strength', 'least']) find(name).addEventListener('input', paintAll);
watch('value', show);
show();
