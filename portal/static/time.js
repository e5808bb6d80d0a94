// Times in the visitor's own language, and countdowns.

const dayAndTime = new Intl.DateTimeFormat(undefined, { weekday: 'long', hour: '2-digit', minute: '2-digit' });
const dateAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: 'long', timeStyle: 'short' });
const timeOnly = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });

export function localTime(date) {
  const away = date.getTime() - Date.now();
  if (date.toDateString() === new Date().toDateString()) return `today, ${timeOnly.format(date)}`;
  if (away > 0 && away < 6 * 86400e3) return dayAndTime.format(date);
  return dateAndTime.format(date);
}

// localise rewrites every <time datetime> below root.
export function localise(root) {
  for (const t of root.querySelectorAll('time[datetime]')) {
    t.textContent = localTime(new Date(t.dateTime));
    t.title = dateAndTime.format(new Date(t.dateTime));
  }
}

// clock writes seconds as 11:42:07, 42:07 or 0:07.
export function clock(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, '0');
  const h = Math.floor(s / 3600);
  const m = Math.floor(s / 60) % 60;
  return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

// words writes seconds as a person says them.
export function words(seconds) {
  const s = Math.max(0, Math.ceil(seconds));
  if (s < 90) return s === 1 ? '1 second' : `${s} seconds`;
  const m = Math.ceil(s / 60);
  if (m < 90) return `${m} minutes`;
  const h = Math.round(m / 60);
  return h === 1 ? '1 hour' : `${h} hours`;
}

// count calls tick(secondsLeft) now and every second until end (milliseconds since 1970,
// this computer's clock), then done(). It returns a function that stops it.
export function count(end, tick, done) {
  let timer = 0;
  const step = () => {
    const left = (end - Date.now()) / 1000;
    if (left <= 0) {
      clearInterval(timer);
      document.removeEventListener('visibilitychange', step);
      done();
      return;
    }
    tick(left);
  };
  const stop = () => {
    clearInterval(timer);
    document.removeEventListener('visibilitychange', step);
  };
  timer = setInterval(step, 1000);
  document.addEventListener('visibilitychange', step);
  step();
  return stop;
}
