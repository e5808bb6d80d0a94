// The WireGuard configuration: completed here with the private key, as text, file and picture.

import { encodeQR } from './vendor/qr.js';

// complete puts the private key after [Interface].
export function complete(config, privateKey) {
  const head = '[Interface]\n';
  const at = config.indexOf(head);
  if (at < 0) throw new Error('no_interface');
  const after = at + head.length;
  return config.slice(0, after) + `PrivateKey = ${privateKey}\n` + config.slice(after);
}

// tunnelName names the tunnel for the apps, which take it from the file's name, in the
// way of peers.TunnelName: at most 15 of [a-zA-Z0-9_=+.-], as much of "alice-laptop" as fits.
export function tunnelName(userAndDevice) {
  const most = 15;
  const slash = userAndDevice.indexOf('/');
  const device = userAndDevice.slice(slash + 1);
  let user = userAndDevice.slice(0, slash).split('@')[0];
  const room = most - 1 - device.length;
  if (user.length > room) user = user.slice(0, Math.max(room, 6));
  return `${user}-${device}`.slice(0, most).replace(/[-._]+$/, '');
}

const svg = 'http://www.w3.org/2000/svg';

// picture draws text as a QR code of level M, with the quiet zone of four modules. The
// colours are fixed: cameras want dark on light, in dark mode too.
export function picture(text, label) {
  const rows = encodeQR(text, 'raw', { ecc: 'medium', border: 4, encoding: 'byte' });
  let d = '';
  rows.forEach((row, y) => {
    for (let x = 0; x < row.length; x++) {
      if (!row[x]) continue;
      let n = 1;
      while (row[x + n]) n++;
      d += `M${x} ${y}h${n}v1h${-n}z`;
      x += n;
    }
  });
  const root = document.createElementNS(svg, 'svg');
  root.setAttribute('viewBox', `0 0 ${rows.length} ${rows.length}`);
  root.setAttribute('shape-rendering', 'crispEdges');
  root.setAttribute('role', 'img');
  root.setAttribute('aria-label', label);
  const paper = document.createElementNS(svg, 'rect');
  paper.setAttribute('width', rows.length);
  paper.setAttribute('height', rows.length);
  paper.setAttribute('fill', '#fff');
  const ink = document.createElementNS(svg, 'path');
  ink.setAttribute('d', d);
  ink.setAttribute('fill', '#000');
  root.append(paper, ink);
  return root;
}
