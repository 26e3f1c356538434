// Viewer: one frame with its outlines; a click picks an object.

const view = { frame: 0, zoom: 1, picked: -1, image: null, drawn: 0 };
const pressing = matchMedia('(pointer: coarse)').matches ? 'Tap' : 'Click';
const SHARPEST = 4096; // px; the canvas is not made larger than this

function visibleObjects(frame) {
  const objects = [];
  for (let i = frame.first; i < frame.last; i++) if (shown[i]) objects.push(i);
  return objects;
}

// The whole picture lies in the window as the page opens, beside the sliders; on a phone above them.
function paneHeight() {
  if (matchMedia('(max-width: 900px)').matches) return Math.max(innerHeight * 0.5, 240);
  const top = $('pane').getBoundingClientRect().top + scrollY;
  return Math.max(innerHeight - top - 16, innerHeight * 0.6, 300);
}

function fitted(frame) {
  const pane = $('pane');
  const wide = Math.max(pane.clientWidth, 200);
  const high = paneHeight();
  return Math.min(wide / (frame.width * frame.scale), high / (frame.height * frame.scale));
}

// CSS pixels and canvas pixels for each pixel of the picture.
function scales(frame) {
  const shownScale = fitted(frame) * view.zoom;
  const ratio = Math.min(devicePixelRatio || 1, 2);
  const longest = Math.max(frame.width, frame.height) * frame.scale;
  return [shownScale, Math.min(shownScale * ratio, SHARPEST / longest)];
}

function draw() {
  view.drawn = 0;
  const frame = frames[view.frame];
  const canvas = $('view');
  $('pane').style.maxHeight = `${paneHeight()}px`;
  const [shownScale, scale] = scales(frame);
  const wide = Math.max(1, Math.round(frame.width * frame.scale * scale));
  const high = Math.max(1, Math.round(frame.height * frame.scale * scale));
  if (canvas.width !== wide) canvas.width = wide;
  if (canvas.height !== high) canvas.height = high;
  canvas.style.width = `${Math.round(frame.width * frame.scale * shownScale)}px`;
  canvas.style.height = `${Math.round(frame.height * frame.scale * shownScale)}px`;
  const context = canvas.getContext('2d');
  context.fillStyle = '#15191b';
  context.fillRect(0, 0, wide, high);
  context.imageSmoothingQuality = 'high';
  if (view.image) context.drawImage(view.image, 0, 0, wide, high);
  const width = Math.max(1, Math.min(2.5, 1.5 * (scale / shownScale)));
  const objects = visibleObjects(frame);
  if ($('show-outlines').checked) {
    drawObjects(context, objects, scale, width);
    const marked = [...verdicts.keys()].filter((i) => i >= frame.first && i < frame.last);
    drawMarks(context, marked, scale, width);
  }
  if ($('show-examples').checked) drawExamples(context, frame, scale, width);
  if (view.picked >= frame.first && view.picked < frame.last) {
    const path = new Path2D();
    trace(path, outlines, view.picked, scale);
    context.setLineDash([width * 3, width * 2]);
    context.lineWidth = width * 2.4;
    context.strokeStyle = '#fff';
    context.stroke(path);
    context.setLineDash([]);
  }
  canvas.setAttribute('aria-label', `${frame.name}: ${plural(objects.length, 'object')} shown, ${plural(frame.examples, 'example')} and ${plural(frame.negatives, 'negative example')}`);
}

const redraw = () => {
  view.drawn ||= requestAnimationFrame(draw);
};

async function show(index) {
  view.frame = within(index, 0, frames.length - 1);
  view.picked = -1;
  view.image = null;
  $('frame').value = String(view.frame);
  $('previous').disabled = view.frame === 0;
  $('next').disabled = view.frame === frames.length - 1;
  document.querySelectorAll('#frame-table tbody tr').forEach((row, k) => {
    row.classList.toggle('current', k === view.frame);
    if (k === view.frame) row.setAttribute('aria-current', 'true');
    else row.removeAttribute('aria-current');
  });
  showPicked();
  const wanted = view.frame;
  const image = await picture(wanted);
  if (wanted === view.frame) {
    view.image = image;
    redraw();
  }
}

function zoom(factor) {
  const pane = $('pane');
  const before = view.zoom;
  view.zoom = factor ? within(view.zoom * factor, 1, 16) : 1;
  const middle = [pane.scrollLeft + pane.clientWidth / 2, pane.scrollTop + pane.clientHeight / 2];
  draw();
  const grown = view.zoom / before;
  pane.scrollLeft = middle[0] * grown - pane.clientWidth / 2;
  pane.scrollTop = middle[1] * grown - pane.clientHeight / 2;
}

// --- picking ---------------------------------------------------------------------------------------------------------

function inside(i, x, y) {
  const [x0, y0, x1, y1] = boxes.subarray(4 * i, 4 * i + 4);
  if (x < x0 || x > x1 || y < y0 || y > y1) return false;
  const { points, starts } = outlines;
  let odd = false;
  for (let j = starts[i], k = starts[i + 1] - 2; j < starts[i + 1]; k = j, j += 2) {
    const crosses = points[j + 1] > y !== points[k + 1] > y;
    if (crosses && x < ((points[k] - points[j]) * (y - points[j + 1])) / (points[k + 1] - points[j + 1]) + points[j]) odd = !odd;
  }
  return odd;
}

function pick(event) {
  const frame = frames[view.frame];
  const canvas = $('view');
  const area = canvas.getBoundingClientRect();
  const x = ((event.clientX - area.left) / area.width) * frame.width * frame.scale;
  const y = ((event.clientY - area.top) / area.height) * frame.height * frame.scale;
  const hits = visibleObjects(frame).filter((i) => inside(i, x, y));
  view.picked = hits.length ? hits.reduce((a, b) => (areas[a] < areas[b] ? a : b)) : -1;
  showPicked();
  redraw();
}

function showPicked() {
  const i = view.picked;
  $('picked-buttons').hidden = i < 0;
  $('picked-text').textContent =
    i < 0
      ? shownTotal
        ? `${pressing} an object to mark it as right or wrong.`
        : ''
      : `${nameOf(i)}: ${isConfirmed(i) ? 'confirmed' : `score ${scores[i].toFixed(digits)}`}, ${format(areas[i])} px.`;
  for (const button of $('picked-buttons').children) {
    button.setAttribute('aria-pressed', String(i >= 0 && verdicts.get(i) === button.dataset.verdict));
  }
}

function showCounts() {
  document.querySelectorAll('[data-shown]').forEach((cell) => {
    const text = format(shownIn[Number(cell.dataset.shown)]);
    if (cell.textContent !== text) cell.textContent = text;
  });
}

function startViewer() {
  const select = $('frame');
  frames.forEach((frame, index) => select.append(new Option(frame.name, String(index))));
  select.addEventListener('change', () => show(Number(select.value)));
  $('previous').addEventListener('click', () => show(view.frame - 1));
  $('next').addEventListener('click', () => show(view.frame + 1));
  $('zoom-in').addEventListener('click', () => zoom(1.6));
  $('zoom-out').addEventListener('click', () => zoom(1 / 1.6));
  $('zoom-fit').addEventListener('click', () => zoom(0));
  for (const id of ['show-outlines', 'show-examples']) $(id).addEventListener('change', redraw);
  $('view').addEventListener('click', pick);
  $('picked-buttons').addEventListener('click', (event) => {
    const verdict = event.target.dataset?.verdict;
    if (verdict && view.picked >= 0) setVerdict(view.picked, verdict);
  });
  $('frame-table').addEventListener('click', (event) => {
    const index = event.target.dataset?.frame;
    if (index === undefined) return;
    show(Number(index));
    $('frames').focus({ preventScroll: true });
    $('frames').scrollIntoView({ block: 'start' });
  });
  new ResizeObserver(redraw).observe($('pane'));
  on('chosen', () => {
    draw();
    showCounts();
    if (view.picked < 0) showPicked();
  });
  on('marked', () => {
    showPicked();
    redraw();
  });
  const scale = $('scale').getContext('2d');
  css.forEach((colour, k) => {
    scale.fillStyle = colour;
    scale.fillRect((k * 160) / levels, 0, 160 / levels + 1, 10);
  });
  $('scale-low').textContent = data.range[0].toFixed(digits);
  $('scale-high').textContent = data.range[1].toFixed(digits);
}
