// The page's texts, which the server brought along in its language, and that language's
// ways of writing times, numbers and plurals.

const page = JSON.parse(document.getElementById('words').textContent);

// The reader's own region of the page's language, where the browser knows one: dates in
// Canada are not those of France.
export const locale = navigator.languages.find((l) => l.split('-')[0] === page.language) ?? page.language;

const plural = new Intl.PluralRules(locale);
const number = new Intl.NumberFormat(locale);
const decimal = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
const dayAndTime = new Intl.DateTimeFormat(locale, { weekday: 'long', hour: '2-digit', minute: '2-digit' });
const dateAndTime = new Intl.DateTimeFormat(locale, { dateStyle: 'long', timeStyle: 'short' });
const timeOnly = new Intl.DateTimeFormat(locale, { hour: '2-digit', minute: '2-digit' });
const inDays = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' });

const kinds = { number: (n) => number.format(n), size: fileSize, time: when };

// say is the text with this id. Of a parameter called count the plural form depends.
export function say(id, parameters = {}) {
  const forms = page.texts[id];
  if (!forms) return id;
  const form = 'count' in parameters ? plural.select(parameters.count) : 'other';
  return (forms[form] ?? forms.other).replace(/\{([a-z_]+)(?:, ([a-z]+))?\}/g,
    (_, name, kind) => (kind ? kinds[kind](parameters[name]) : String(parameters[name])));
}

// when writes an instant as its reader's clock has it: the nearer, the shorter.
export function when(date) {
  const away = date.getTime() - Date.now();
  if (date.toDateString() === new Date().toDateString()) return `${inDays.format(0, 'day')}, ${timeOnly.format(date)}`;
  if (away > 0 && away < 6 * 86400e3) return dayAndTime.format(date);
  return dateAndTime.format(date);
}

// localise rewrites every <time datetime> below root.
export function localise(root) {
  for (const t of root.querySelectorAll('time[datetime]')) {
    t.textContent = when(new Date(t.dateTime));
    t.title = dateAndTime.format(new Date(t.dateTime));
  }
}

// duration writes seconds in one unit, as a person says them.
export function duration(seconds) {
  const s = Math.max(0, Math.ceil(seconds));
  const m = Math.ceil(s / 60);
  const [n, unit] = s < 90 ? [s, 'second'] : m < 90 ? [m, 'minute'] : [Math.round(m / 60), 'hour'];
  return new Intl.NumberFormat(locale, { style: 'unit', unit, unitDisplay: 'long' }).format(n).replaceAll(' ', '\u00a0');
}

// fileSize writes a number of bytes in binary units, whose names Intl does not know.
export function fileSize(bytes) {
  const units = ['size.b', 'size.kib', 'size.mib', 'size.gib', 'size.tib'];
  let n = bytes;
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return say(units[i], { n: decimal.format(n) });
}

// percent writes a fraction of one.
export function percent(fraction) {
  return new Intl.NumberFormat(locale, { style: 'percent' }).format(Math.floor(100 * fraction) / 100);
}
