// Marks: what the user has marked, stored in the browser as far as it allows, and exported for the next run.

const verdicts = new Map();
const place = `sam2-fewshot ${data.id}`;

let isStored = true;

function remember() {
  try {
    localStorage.setItem(place, JSON.stringify([...verdicts]));
    isStored = true;
  } catch {
    isStored = false; // Some browsers store nothing for files; the marks then last as long as the page.
  }
}

// Takes what is stored in place of what this page knows, and tells whether that was something else.
function recall() {
  let stored = null;
  try {
    stored = JSON.parse(localStorage.getItem(place));
  } catch {
    // as if nothing were stored
  }
  if (!isStored || !Array.isArray(stored)) return false;
  const before = JSON.stringify([...verdicts]);
  verdicts.clear();
  for (const [i, verdict] of stored.filter(Array.isArray)) {
    if (Number.isInteger(i) && i >= 0 && i < total && (verdict === 'right' || verdict === 'wrong')) verdicts.set(i, verdict);
  }
  return JSON.stringify([...verdicts]) !== before;
}

// The same verdict a second time takes the mark away. A busy browser may have told at first that nothing is stored, so
// it is asked once more before that is written over.
function setVerdict(i, verdict) {
  const isTaken = verdicts.get(i) === verdict;
  const isChanged = recall();
  if (isTaken) verdicts.delete(i);
  else verdicts.set(i, verdict);
  remember();
  emit('marked', isChanged ? null : i);
}

function corrections() {
  const annotations = [...verdicts].map(([i, verdict]) => {
    const frame = frames[owner[i]];
    const coordinates = [];
    for (let j = outlines.starts[i]; j < outlines.starts[i + 1]; j += 2) {
      const [x, y] = [outlines.points[j], outlines.points[j + 1]].map((value) => Math.round((value / frame.scale) * 1000) / 1000);
      coordinates.push({ x, y });
    }
    return {
      shape: 'polygon',
      coordinates,
      tags: [verdict],
      channel: 0,
      location: { XY: frame.xy, Z: frame.z, Time: frame.time },
      image: frame.image,
      number: numberOf(i),
      score: scores[i],
    };
  });
  return {
    annotations,
    'sam2-fewshot': {
      kind: 'corrections',
      version: 1,
      results: data.results,
      similarity_threshold: oneThreshold(),
      min_mask_area: choice.minArea,
      max_mask_area: choice.maxArea,
    },
  };
}

function exportMarks() {
  const url = URL.createObjectURL(new Blob([`${JSON.stringify(corrections(), null, 1)}\n`], { type: 'application/json' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = 'corrections.json';
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  const after = $('after-export');
  after.hidden = false;
  after.textContent = 'Saved as corrections.json in your downloads. Learn from it, and look again, with: ';
  const code = document.createElement('code');
  code.textContent = commandLine('PATH/TO/corrections.json');
  after.append(code, ` ${whereToRun()}`);
}

function countMarks() {
  const wrong = [...verdicts.values()].filter((verdict) => verdict === 'wrong').length;
  $('mark-count').textContent = verdicts.size
    ? `Marked: ${format(verdicts.size - wrong)} right, ${format(wrong)} wrong.`
    : 'Nothing is marked yet.';
  $('export').disabled = $('clear').disabled = !verdicts.size;
}

function startMarks() {
  recall();
  // The same report in another tab: what is marked there counts here too, so that neither stores an older list.
  addEventListener('storage', (event) => {
    if (event.key !== place && event.key !== null) return; // null: everything stored was cleared
    if (event.newValue === null) verdicts.clear();
    else recall();
    emit('marked', null);
  });
  $('export').addEventListener('click', exportMarks);
  $('clear').addEventListener('click', () => {
    verdicts.clear();
    remember();
    emit('marked', null);
  });
  on('marked', countMarks);
  // What was saved, and the command for it, are of the marks and the choice as they were.
  for (const event of ['marked', 'chosen']) on(event, () => ($('after-export').hidden = true));
  countMarks();
}
