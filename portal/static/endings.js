// What a person can do about each way in which a link fails. The gateway says what is wrong.
// They are kinds of internal/control, and three of our own; their texts are in the catalogue.
export const endings = ['invitation_used', 'invitation_expired', 'invitation_unknown', 'disabled',
  'other_browser', 'not_enrolled', 'no_cookie', 'network', 'no_token'];

// Those after which the same link can be started anew.
export const anew = ['other_browser', 'not_enrolled'];
