// The field for a one-time code, and what is said when a code is refused.

import { count } from './time.js';
import { duration, say } from './words.js';

// digitsOnly keeps a code field to digits: people paste "123 456".
export function digitsOnly(input) {
  input.removeAttribute('maxlength'); // a pasted space must not cost a digit
  input.addEventListener('input', () => {
    const clean = input.value.replace(/[^0-9]/g, '').slice(0, 6);
    if (clean !== input.value) input.value = clean;
  });
}

// refusals shows errors in box and marks the field they are about (input, if not said),
// with a countdown where waiting helps.
export function refusals(box, input) {
  let stop = () => {};
  let field = input;
  const clear = () => {
    stop();
    box.replaceChildren();
    field.removeAttribute('aria-invalid');
  };
  // The first sentence says what is wrong, the others what to do.
  const tell = (text) => {
    const parts = /^(.*?[.:]) (.+)$/s.exec(text);
    box.replaceChildren(...(parts ? parts.slice(1) : [text]).map((part, i) => {
      const p = document.createElement('p');
      p.textContent = part;
      if (i > 0) p.className = 'more';
      return p;
    }));
  };
  const show = (e, of = input) => {
    clear();
    field = of;
    field.setAttribute('aria-invalid', 'true');
    const used = e.code === 'code_used' && e.retryAfter > 0 && e.retryAfter <= 90;
    // The gateway's message for a used code counts seconds, which do not stand still.
    tell(used ? say('code.used') : e.message);
    if (e.retryAfter > 0) {
      // Only the first sentence is announced: a countdown that is read out each second
      // would drown everything else.
      const left = document.createElement('p');
      left.className = 'more count';
      left.setAttribute('aria-live', 'off');
      box.append(left);
      const end = Date.now() + e.retryAfter * 1000;
      stop = count(end, (s) => {
        left.textContent = say(used ? 'code.next' : s > 90 ? 'code.again_at' : 'code.again', { wait: duration(s), end: new Date(end) });
      }, () => {
        left.textContent = say(used ? 'code.next_there' : 'code.again_now');
        field.removeAttribute('aria-invalid');
        if (document.activeElement === field) field.select();
      });
    }
  };
  return { clear, show, tell };
}
