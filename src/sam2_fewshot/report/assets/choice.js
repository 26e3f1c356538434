// Choice: threshold and size range, what they hide at once, and how to get the same from the program.

const BINS = 50;
// Without a threshold of its own the choice has the run's: one, or one for each frame where the run has chosen it so.
const choice = { threshold: null, minArea: data.minArea, maxArea: data.maxArea };
const varies = frames.some((frame) => frame.threshold !== data.threshold);
const thresholdOf = (i) => choice.threshold ?? frames[owner[i]].threshold;
const oneThreshold = () => choice.threshold ?? (varies ? null : data.threshold);
const sliderPlace = () => choice.threshold ?? data.threshold;
const shown = new Uint8Array(total);
const shownIn = new Uint32Array(frames.length);
let shownTotal = 0;
let smallest = Infinity;
let largest = 0;
for (const area of areas) {
  if (area < smallest) smallest = area;
  if (area > largest) largest = area;
}
if (!total) [smallest, largest] = [0, 1];

// What the headline and the cards tell, of the choice; neither slider nor card concerns what the user confirmed or marked.
const counts = { found: 0, doubtful: 0, missed: 0 };
const confirmedTotal = frames.reduce((sum, frame) => sum + frame.confirmed, 0);
const runTotal = frames.reduce((sum, frame) => sum + frame.kept + frame.marked, 0);

const fits = (i) => areas[i] >= choice.minArea && (!choice.maxArea || areas[i] <= choice.maxArea);

function apply() {
  shownIn.fill(0);
  shownTotal = 0;
  Object.assign(counts, { found: 0, doubtful: 0, missed: 0 });
  for (let i = 0; i < total; i++) {
    const right = fits(i);
    const confirmed = isConfirmed(i);
    const seen = confirmed || (scores[i] >= thresholdOf(i) && right);
    shown[i] = seen ? 1 : 0;
    if (seen) {
      shownIn[owner[i]]++;
      shownTotal++;
      if (confirmed) continue;
      counts.found++;
      if (scores[i] < thresholdOf(i) + data.margin) counts.doubtful++;
    } else if (right && scores[i] >= thresholdOf(i) - data.margin) counts.missed++;
  }
}

// The headline in one place: of the run as it was, and of the choice once it is another.
function headline() {
  const where = `on ${plural(frames.length, 'frame')}`;
  const run = isChanged() ? `; ${format(runTotal)} in this run` : '';
  if (!confirmedTotal && !marked) {
    return `${counts.found ? plural(counts.found, 'object') : 'No objects'} ${run ? 'chosen' : 'found'} ${where}${run}`;
  }
  const parts = [`${format(counts.found)} found`];
  if (confirmedTotal) parts.push(`${format(confirmedTotal)} confirmed`);
  if (marked) parts.push(`${format(marked)} marked`);
  return `${parts.join(' + ')} = ${plural(shownTotal + marked, 'object')} ${where}${run}`;
}

function showSummary() {
  const text = headline();
  if ($('headline').textContent !== text) $('headline').textContent = text;
  if (!$('tiles')) return;
  $('tiles').hidden = !counts.found && !counts.missed;
  $('clear-count').textContent = format(counts.found - counts.doubtful);
  $('doubtful-count').textContent = format(counts.doubtful);
  $('missed-count').textContent = format(counts.missed);
}

const median = (values) => {
  const sorted = values.sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

// Sorting takes longer than a step of the slider may.
function showMedian() {
  if (!$('tiles')) return;
  const seen = (from) => from.filter((_, i) => shown[i] && !isConfirmed(i));
  $('median-score').textContent = counts.found ? median(seen(scores)).toFixed(2) : '–';
  $('median-area').textContent = counts.found ? format(Math.round(median(seen(areas)))) : '–';
}

const changed = () => ({
  threshold: choice.threshold !== null,
  minArea: choice.minArea !== data.minArea,
  maxArea: choice.maxArea !== data.maxArea,
});

const isChanged = () => Object.values(changed()).some(Boolean);

function commandLine(file = '') {
  const different = changed();
  const parts = ['sam2-fewshot refine', data.folder];
  if (file) parts.push(file);
  if (file && data.objectModel) parts.push('--examples PATH/TO/EXAMPLES'); // an object model takes no corrections
  if (different.threshold && !data.fixed) parts.push('--threshold-mode fixed');
  if (different.threshold) parts.push(`--similarity-threshold ${choice.threshold}`);
  if (different.minArea) parts.push(`--min-mask-area ${choice.minArea}`);
  if (different.maxArea) parts.push(`--max-mask-area ${choice.maxArea}`);
  return parts.join(' ');
}

const whereToRun = () => (data.where ? `Run it in ${data.where}. ` : '');

// Results are complete down to a floor; refine takes them over at any threshold above it.
function whatFollows() {
  const { minArea, maxArea } = changed();
  if (minArea || maxArea) return 'With other sizes the frames are searched again, so a few objects may differ.';
  if (choice.threshold < data.complete) return 'At so low a threshold frames are searched again, since not all that reaches it is known.';
  return 'Nothing is searched again, so this takes seconds.';
}

function showCommand() {
  const different = changed();
  const any = isChanged();
  // A line may break between the options, not within one; of the folder, which may be long, anywhere.
  const [first, ...options] = any ? commandLine().split(/ (?=--)/) : ['Move a slider, and the command appears here.'];
  $('command').replaceChildren(first, ...options.flatMap((text) => [' ', element('span', { textContent: text })]));
  $('copy').hidden = $('reset').hidden = !any;
  const names = [];
  if (different.threshold && !data.fixed) names.push('Threshold Mode: fixed');
  if (different.threshold) names.push(`Similarity Threshold: ${choice.threshold}`);
  if (different.minArea) names.push(`Min Mask Area: ${choice.minArea}`);
  if (different.maxArea) names.push(`Max Mask Area: ${choice.maxArea}`);
  $('setting').textContent = any ? `${whereToRun()}${whatFollows()} In NimbusImage and in a settings file: ${names.join(', ')}.` : '';
}

function showAreaHint() {
  const [low, high] = data.exampleAreas.length ? data.exampleAreas : [Infinity, 0];
  const excludes = choice.minArea > low || (choice.maxArea && choice.maxArea < high);
  $('area-hint').hidden = !excludes;
  if (excludes) {
    $('area-hint').textContent = `The examples have ${format(low)} to ${format(high)} px. The program does not exclude sizes that were shown to it; leave such examples out as well.`;
  }
}

// --- histogram -------------------------------------------------------------------------------------------------------

const svg = 'http://www.w3.org/2000/svg';
const bars = [];
let thresholdLine;

function startHistogram() {
  const host = $('histogram');
  const [low, high] = data.range;
  for (let bin = 0; bin < BINS; bin++) {
    const bar = document.createElementNS(svg, 'rect');
    bar.setAttribute('x', String((bin * 400) / BINS + 0.6));
    bar.setAttribute('width', String(400 / BINS - 1.2));
    bar.dataset.score = String(low + ((bin + 0.5) / BINS) * (high - low));
    host.append(bar);
    bars.push(bar);
  }
  const base = document.createElementNS(svg, 'line');
  for (const [name, value] of Object.entries({ x1: 0, x2: 400, y1: 89.5, y2: 89.5, class: 'base' })) base.setAttribute(name, String(value));
  thresholdLine = document.createElementNS(svg, 'line');
  for (const [name, value] of Object.entries({ y1: 0, y2: 90, class: 'threshold' })) thresholdLine.setAttribute(name, String(value));
  host.append(base, thresholdLine);
  fillHistogram();
}

function fillHistogram() {
  const [low, high] = data.range;
  const counts = new Uint32Array(BINS);
  for (let i = 0; i < total; i++) {
    if (!isConfirmed(i) && fits(i)) counts[Math.max(0, Math.min(BINS - 1, Math.floor(((scores[i] - low) / (high - low)) * BINS)))]++;
  }
  const most = Math.max(1, ...counts);
  bars.forEach((bar, bin) => {
    const height = counts[bin] ? Math.max(2, Math.sqrt(counts[bin] / most) * 86) : 0;
    bar.setAttribute('y', String(89 - height));
    bar.setAttribute('height', String(height));
  });
}

function colourHistogram() {
  const [low, high] = data.range;
  for (const bar of bars) {
    const score = Number(bar.dataset.score);
    const off = score < sliderPlace();
    bar.setAttribute('class', off ? 'off' : '');
    bar.setAttribute('fill', off ? '' : css[level(score)]);
  }
  const x = ((sliderPlace() - low) / (high - low)) * 400;
  thresholdLine.setAttribute('x1', String(x));
  thresholdLine.setAttribute('x2', String(x));
  thresholdLine.setAttribute('visibility', oneThreshold() === null ? 'hidden' : 'visible');
  $('histogram-title').textContent = `Histogram of the scores from ${low} to ${high}: ${format(shownTotal)} shown, ${format(total - shownTotal)} hidden`;
}

// --- controls --------------------------------------------------------------------------------------------------------

// The size sliders are logarithmic: 0 to 1000 from the smallest to the largest object.
const span = () => Math.log((largest + 1) / (smallest + 1)) || 1;
const toPlace = (area) => Math.round((1000 * Math.log((area + 1) / (smallest + 1))) / span());
const toArea = (place) => Math.round((smallest + 1) * Math.exp((place / 1000) * span()) - 1);
const within = (value, low, high) => Math.max(low, Math.min(high, value));

// What is being typed is left alone until it is entered; then the field shows what is used.
function showControls(entered = false) {
  const isFree = (id) => entered === true || document.activeElement !== $(id);
  $('threshold').value = sliderPlace();
  $('threshold').setAttribute('aria-valuetext', String(oneThreshold() ?? 'one for each frame'));
  if (isFree('threshold-number')) $('threshold-number').value = oneThreshold() ?? '';
  $('threshold-number').placeholder = 'by frame';
  $('min-area').value = choice.minArea <= smallest ? 0 : within(toPlace(choice.minArea), 0, 1000);
  $('max-area').value = choice.maxArea === 0 || choice.maxArea >= largest ? 1000 : within(toPlace(choice.maxArea), 0, 1000);
  if (isFree('min-area-number')) $('min-area-number').value = choice.minArea;
  if (isFree('max-area-number')) $('max-area-number').value = choice.maxArea || '';
  $('max-area-number').placeholder = 'no limit';
  $('min-area').setAttribute('aria-valuetext', `${format(choice.minArea)} px`);
  $('max-area').setAttribute('aria-valuetext', choice.maxArea ? `${format(choice.maxArea)} px` : 'no limit');
}

let waiting = 0;
let silence = 0;
let resized = false;
function change(values) {
  resized ||= 'minArea' in values || 'maxArea' in values;
  Object.assign(choice, values);
  clearTimeout(silence); // what it would say is no longer so
  if (!waiting) waiting = requestAnimationFrame(refresh);
}

function refresh() {
  waiting = 0;
  const began = performance.now();
  apply();
  showControls();
  if (resized) fillHistogram();
  resized = false;
  colourHistogram();
  showSummary();
  showCommand();
  showAreaHint();
  $('shown-count').textContent = format(shownTotal);
  $('shown-of').textContent = total ? `of ${format(total)} shown` : 'shown';
  $('shown-of').title = `All that have a score of at least ${Number(data.floor.toFixed(3))}${marked ? '; those that you marked are not among them' : ''}`;
  emit('chosen');
  document.body.dataset.step = (performance.now() - began).toFixed(1); // for benchmarks/report.py
  announce();
}

function announce() {
  clearTimeout(silence);
  silence = setTimeout(() => {
    showMedian();
    $('status').textContent = `${plural(shownTotal, 'object')} shown at ${oneThreshold() === null ? "each frame's threshold" : `a threshold of ${oneThreshold()}`}.`;
    document.body.dataset.settled = String(Number(document.body.dataset.settled ?? 0) + 1); // for the tests
    emit('settled');
  }, 250);
}

function startChoice() {
  const [low, high] = data.range;
  const step = 10 ** -digits;
  Object.assign($('threshold'), { min: low, max: high, step });
  Object.assign($('threshold-number'), { min: 0, max: 1, step });
  $('axis-low').textContent = low.toFixed(digits);
  $('axis-high').textContent = high.toFixed(digits);
  for (const id of ['min-area', 'max-area']) Object.assign($(id), { min: 0, max: 1000, step: 1 });
  const read = (id, then) =>
    $(id).addEventListener('input', () => {
      const value = $(id).valueAsNumber;
      then(Number.isFinite(value) ? value : null);
    });
  // The run's own threshold need not lie on a step of the slider; what is typed is meant as it is.
  const isNear = (value) => Math.abs(value - data.threshold) < step / 2;
  const isSame = (value) => value === data.threshold;
  for (const [id, isOwn] of [['threshold', isNear], ['threshold-number', isSame]]) {
    read(id, (value) => value !== null && change({ threshold: !varies && isOwn(value) ? null : within(value, 0, 1) }));
  }
  read('min-area', (place) => change({ minArea: place <= 0 ? data.minArea : toArea(place) }));
  read('max-area', (place) => change({ maxArea: place >= 1000 ? data.maxArea : Math.max(1, toArea(place)) }));
  read('min-area-number', (value) => change({ minArea: value === null ? data.minArea : Math.max(0, Math.round(value)) }));
  read('max-area-number', (value) => change({ maxArea: value === null ? 0 : Math.max(0, Math.round(value)) }));
  for (const id of ['threshold-number', 'min-area-number', 'max-area-number']) $(id).addEventListener('change', () => showControls(true));
  $('reset').addEventListener('click', () => change({ threshold: null, minArea: data.minArea, maxArea: data.maxArea }));
  const [least, most] = data.similarAreas;
  $('similar').hidden = most === undefined;
  $('similar').addEventListener('click', () =>
    change({ minArea: Math.max(data.minArea, least), maxArea: Math.min(data.maxArea || most, most) }),
  );
  $('copy').addEventListener('click', copyCommand);
  startHistogram();
}

async function copyCommand() {
  const text = $('command').textContent;
  try {
    await navigator.clipboard.writeText(text);
    $('copy').textContent = 'Copied';
  } catch {
    getSelection().selectAllChildren($('command'));
    $('copy').textContent = 'Selected';
  }
  setTimeout(() => {
    $('copy').textContent = 'Copy';
  }, 2000);
}
