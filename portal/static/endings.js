// What a person can do about each way in which a link fails. The gateway says what is wrong.
// They are codes of internal/control, and three of our own.
export const endings = {
  invitation_used: ['This link has been used.', 'If it was you, your device is set up already: switch its tunnel on in WireGuard and sign in.'],
  invitation_expired: ['This link has ended.', 'Your administrator can make a new one in a moment.'],
  invitation_unknown: ['This link is not known.', 'See that you opened the whole link, with everything after the # sign.'],
  disabled: ['This account is switched off.', 'Only your administrator can switch it on again.'],
  other_browser: ['This went on in another browser.', 'If you start anew here, delete the entry that you have just added to your authenticator: it is worthless now.'],
  not_enrolled: ['The set-up was interrupted.', 'Start anew here, and scan the new code with your authenticator.'],
  no_cookie: ['Cookies are switched off.', 'Allow cookies for this page, then try again. Your link is not lost.'],
  network: ['The gateway does not answer.', 'Your link is not lost.'],
  no_token: ['This link is incomplete.', 'Open the link of your invitation again, with everything after the # sign. If your mail program cuts it off, copy it as a whole into the address bar.'],
};

// Those after which the same link can be started anew.
export const anew = ['other_browser', 'not_enrolled'];
