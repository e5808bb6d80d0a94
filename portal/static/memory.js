// What this tab remembers of an enrolment, so that a reload takes it up again. It is the
// tab's own storage: no other tab, site or server sees it, and it ends with the tab or
// when the device has signed in.

const key = 'vpnd.enrolment';

export function recall() {
  try {
    return JSON.parse(sessionStorage.getItem(key)) ?? {};
  } catch {
    return {};
  }
}

export function remember(what) {
  try {
    sessionStorage.setItem(key, JSON.stringify(what));
  } catch {
    // Storage may be off: then a reload starts from the link again.
  }
}

export function forget() {
  try {
    sessionStorage.removeItem(key);
  } catch {
    // as above
  }
}

// keepsCookies says whether this browser keeps cookies for this page. Where they are
// switched off, so is the tab's storage; Chromium's cookieEnabled stays true.
export function keepsCookies() {
  try {
    sessionStorage.getItem(key);
    return navigator.cookieEnabled;
  } catch {
    return false;
  }
}
