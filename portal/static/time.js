// Countdowns.

// clock writes seconds as 11:42:07, 42:07 or 0:07.
export function clock(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, '0');
  const h = Math.floor(s / 3600);
  const m = Math.floor(s / 60) % 60;
  return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
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
