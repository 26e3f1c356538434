// Drawing: outlines on a canvas, in the colours of the overlays.

const POSITIVE = '#ff00c8';
const RIGHT = '#56d8ff';
const WRONG = '#ff6a3d';

const levels = data.colours.length;
const css = data.colours.map(([r, g, b]) => `rgb(${r},${g},${b})`);
const level = (score) => {
  const [low, high] = data.range;
  return Math.max(0, Math.min(levels - 1, Math.round(((score - low) / (high - low)) * (levels - 1))));
};

function trace(path, from, i, scale, dx = 0, dy = 0) {
  const { points, starts } = from;
  const start = starts[i];
  const end = starts[i + 1];
  if (end - start === 2) {
    path.moveTo(points[start] * scale - dx + 9, points[start + 1] * scale - dy);
    path.arc(points[start] * scale - dx, points[start + 1] * scale - dy, 9, 0, 2 * Math.PI);
    return;
  }
  path.moveTo(points[start] * scale - dx, points[start + 1] * scale - dy);
  for (let j = start + 2; j < end; j += 2) path.lineTo(points[j] * scale - dx, points[j + 1] * scale - dy);
  path.closePath();
}

// Browsers take far longer for one path of thousands of outlines than for its parts.
const TOGETHER = 250;

function strokeObjects(context, objects, scale, width, style) {
  context.lineWidth = width;
  context.strokeStyle = style;
  for (let k = 0; k < objects.length; k += TOGETHER) {
    const path = new Path2D();
    for (const i of objects.slice(k, k + TOGETHER)) trace(path, outlines, i, scale);
    context.stroke(path);
  }
}

function drawObjects(context, objects, scale, width) {
  const alike = Array.from({ length: levels }, () => []);
  for (const i of objects) alike[level(scores[i])].push(i);
  context.lineJoin = 'round';
  context.setLineDash([]);
  strokeObjects(context, objects, scale, width * 2.2, 'rgba(0,0,0,.55)');
  alike.forEach((some, place) => strokeObjects(context, some, scale, width, css[place]));
}

function drawExamples(context, frame, scale, width) {
  frame.marks.forEach((negative, k) => {
    const path = new Path2D();
    trace(path, marksOutlines, frame.firstMark + k, scale);
    context.setLineDash([]);
    context.lineWidth = width * 2.6;
    context.strokeStyle = '#000';
    context.stroke(path);
    const made = k >= frame.marks.length - frame.made; // the outline that SAM 2 has made of a box or a point
    if (!made) context.setLineDash(negative ? [width * 1.5, width * 2.5] : [width * 3.5, width * 2]);
    context.lineWidth = width * 1.6;
    context.strokeStyle = negative ? '#fff' : POSITIVE;
    context.stroke(path);
  });
  context.setLineDash([]);
}

function drawMarks(context, objects, scale, width) {
  for (const i of objects) {
    const verdict = verdicts.get(i);
    if (!verdict) continue;
    const path = new Path2D();
    trace(path, outlines, i, scale);
    context.lineWidth = width * 3.6;
    context.strokeStyle = '#000';
    context.stroke(path);
    context.lineWidth = width * 2;
    context.strokeStyle = verdict === 'right' ? RIGHT : WRONG;
    context.stroke(path);
    if (verdict === 'wrong') {
      const [x0, y0, x1, y1] = boxes.subarray(4 * i, 4 * i + 4);
      const cross = new Path2D();
      cross.moveTo(x0 * scale, y0 * scale);
      cross.lineTo(x1 * scale, y1 * scale);
      cross.moveTo(x1 * scale, y0 * scale);
      cross.lineTo(x0 * scale, y1 * scale);
      context.stroke(cross);
    }
  }
}

// One object with some ground around it, for a card.
async function drawCard(canvas, i) {
  const image = await picture(owner[i]);
  const [x0, y0, x1, y1] = boxes.subarray(4 * i, 4 * i + 4);
  const side = Math.max(2.2 * Math.max(x1 - x0, y1 - y0), 16);
  const left = (x0 + x1 - side) / 2;
  const top = (y0 + y1 - side) / 2;
  const size = canvas.width;
  const scale = size / side;
  const context = canvas.getContext('2d');
  context.fillStyle = '#15191b';
  context.fillRect(0, 0, size, size);
  if (image) {
    const frame = frames[owner[i]];
    const dense = image.naturalWidth / (frame.width * frame.scale); // below 1 where there are very many frames
    const sx = Math.max(0, left);
    const sy = Math.max(0, top);
    const sw = Math.min(image.naturalWidth / dense, left + side) - sx;
    const sh = Math.min(image.naturalHeight / dense, top + side) - sy;
    context.imageSmoothingQuality = 'high';
    if (sw > 0 && sh > 0) {
      const source = [sx, sy, sw, sh].map((value) => value * dense);
      context.drawImage(image, ...source, (sx - left) * scale, (sy - top) * scale, sw * scale, sh * scale);
    }
  }
  const path = new Path2D();
  trace(path, outlines, i, scale, left * scale, top * scale);
  context.lineJoin = 'round';
  context.lineWidth = 5;
  context.strokeStyle = 'rgba(0,0,0,.6)';
  context.stroke(path);
  context.lineWidth = 2.2;
  context.strokeStyle = css[level(scores[i])];
  context.stroke(path);
}
