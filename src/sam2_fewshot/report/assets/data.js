// Data: what the page holds, decoded once, and small helpers.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($('data').textContent);

function bytes(id) {
  const text = atob($(`block-${id}`).textContent);
  const out = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) out[i] = text.charCodeAt(i);
  return out;
}

// Outlines: see encode_outlines in content.py. Returns all vertices in picture pixels and where each outline starts.
function decodeOutlines(packed, count) {
  const starts = new Uint32Array(count + 1);
  let points = new Float32Array(Math.max(1024, packed.length)); // a vertex takes at least two bytes
  let at = 0;
  let length = 0;
  const next = () => {
    let value = 0;
    let factor = 1;
    for (;;) {
      const byte = packed[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
      factor *= 128;
    }
  };
  const signed = () => {
    const value = next();
    return value % 2 ? -(value + 1) / 2 : value / 2;
  };
  for (let i = 0; i < count; i++) {
    let x = 0;
    let y = 0;
    for (let left = next(); left > 0; left--) {
      x += signed();
      y += signed();
      points[length++] = x / data.units;
      points[length++] = y / data.units;
    }
    starts[i + 1] = length;
  }
  return { points: points.subarray(0, length), starts };
}

const scores = new Float64Array(bytes('scores').buffer);
const areas = new Uint32Array(bytes('areas').buffer);
const total = scores.length;
const outlines = decodeOutlines(bytes('outlines'), total);
const frames = data.frames;
const owner = new Uint32Array(total); // frame of each object
{
  let first = 0;
  let firstMark = 0;
  frames.forEach((frame, index) => {
    frame.first = first;
    frame.last = first + frame.kept + frame.below;
    owner.fill(index, frame.first, frame.last);
    first = frame.last;
    frame.firstMark = firstMark;
    firstMark += frame.marks.length;
  });
}
const marksOutlines = decodeOutlines(bytes('marks'), frames.reduce((sum, frame) => sum + frame.marks.length, 0));

const boxes = new Float32Array(4 * total);
for (let i = 0; i < total; i++) {
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let j = outlines.starts[i]; j < outlines.starts[i + 1]; j += 2) {
    const x = outlines.points[j];
    const y = outlines.points[j + 1];
    if (x < x0) x0 = x;
    if (x > x1) x1 = x;
    if (y < y0) y0 = y;
    if (y > y1) y1 = y;
  }
  boxes.set([x0, y0, x1, y1], 4 * i);
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const format = (number) => number.toLocaleString('en');
const plural = (number, word) => `${format(number)} ${word}${number === 1 ? '' : 's'}`;
const digits = data.range[1] - data.range[0] > 0.3 ? 2 : 3;

// What the user confirmed comes first in its frame; no slider applies to it.
const isConfirmed = (i) => i - frames[owner[i]].first < frames[owner[i]].confirmed;
const marked = frames.reduce((sum, frame) => sum + frame.marked, 0);

// Number of an object in its frame, as in the table and the label image; those below the threshold follow.
const numberOf = (i) => i - frames[owner[i]].first + 1;
// In these the numbers that follow are the examples', so what lies below the run's threshold is not called an object.
const nameOf = (i) => `${numberOf(i) > frames[owner[i]].kept ? 'Candidate' : 'Object'} ${numberOf(i)}`;

// Pictures are decoded when they are displayed, and the last few are cached.
const pictures = new Map();
const CACHED = 12;
async function picture(index) {
  if (pictures.has(index)) {
    const found = pictures.get(index);
    pictures.delete(index);
    pictures.set(index, found);
    return found;
  }
  const promise = (async () => {
    const text = $(`picture-${index}`).textContent;
    if (!text) return null;
    const image = new Image();
    image.src = `data:image/jpeg;base64,${text}`;
    try {
      await image.decode();
    } catch {
      return null;
    }
    return image;
  })();
  pictures.set(index, promise);
  if (pictures.size > CACHED) pictures.delete(pictures.keys().next().value);
  return promise;
}

// Events: the choice or a mark has changed.
const events = new EventTarget();
const emit = (name, detail) => events.dispatchEvent(new CustomEvent(name, { detail }));
const on = (name, listener) => events.addEventListener(name, (event) => listener(event.detail));
