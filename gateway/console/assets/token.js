// Tokens (JWT) as this page sees them. It reads their claims to decide what to show; only the gateway checks them.

const ANONYMOUS = new Set(['join', 'send', 'state']);
const ALL = ['join', 'send', 'state', 'moderate', 'manage'];

/** The claims, or `null` where this is no token. */
export function claimsOf(token) {
  try {
    const base64 = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    return typeof claims?.sub === 'string' ? claims : null;
  } catch {
    return null;
  }
}

export const isOver = (token) => (claimsOf(token)?.exp ?? Infinity) * 1000 <= Date.now();

/** What is wrong with a token, or `''`. */
export function tokenError(token) {
  if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token) || !claimsOf(token)) return 'This is no token: three parts with dots between them.';
  return isOver(token) ? 'This token has expired.' : '';
}

/** What a token lets its user do in a room; without one what everybody may. */
export function permissions(token, room) {
  if (!token) return ANONYMOUS;
  const granted = new Set();
  for (const [pattern, given] of Object.entries(claimsOf(token)?.rooms ?? {})) {
    const matches = pattern.endsWith('*') ? room.startsWith(pattern.slice(0, -1)) : pattern === room;
    if (!matches || !Array.isArray(given)) continue;
    for (const permission of given.includes('*') ? ALL : given) granted.add(permission);
  }
  return granted;
}

/** What is offered at the handshake. */
export const subprotocols = (token) => ['roomgate.v1', ...(token ? [`bearer.${token}`] : [])];
