// Requests to the gateway's own API: JSON in, JSON out, errors as ApiError.

import { say } from './words.js';

export class ApiError extends Error {
  constructor(status, code, message, retryAfter) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter; // seconds, 0 if not said
  }
}

// call resolves to {body, link, skew}: link is the address of a Link header, skew how many
// milliseconds the server's clock is ahead of this one.
export async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? {} : { 'Content-Type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
      redirect: 'error',
    });
  } catch {
    throw new ApiError(0, 'network', say('api.silent'), 0);
  }
  let answer = null;
  if (response.status !== 204) {
    try {
      answer = await response.json();
    } catch {
      throw new ApiError(response.status, 'unreadable', say('api.unreadable'), 0);
    }
  }
  if (!response.ok) {
    const e = answer?.error ?? {};
    throw new ApiError(response.status, e.code ?? 'unknown', e.message ?? say('api.failed'),
      Number(response.headers.get('Retry-After')) || 0);
  }
  const link = /^<(http:\/\/[^>]+)>; rel="next"$/.exec(response.headers.get('Link') ?? '');
  const date = Date.parse(response.headers.get('Date') ?? '');
  return { body: answer, link: link ? link[1] : '', skew: Number.isNaN(date) ? 0 : date - Date.now() };
}
