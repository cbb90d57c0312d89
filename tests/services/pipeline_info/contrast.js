// Every visible text whose contrast with what is behind it is less than WCAG 2 AA asks for: 4.5 to 1.
() => {
  const parse = (c) => {
    const m = c.match(/[\d.]+/g).map(Number);
    if (c.startsWith("color(srgb")) return [m[0] * 255, m[1] * 255, m[2] * 255, m[3] ?? 1];
    return [m[0], m[1], m[2], m[3] ?? 1];
  };
  const lum = ([r, g, b]) => { const f = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const ground = (el) => { const layers = []; for (let e = el; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
    return layers.reduce((below, [r, g, b, a]) => [r * a + below[0] * (1 - a), g * a + below[1] * (1 - a), b * a + below[2] * (1 - a)], [255, 255, 255]); };
  const found = new Map();
  for (const el of document.querySelectorAll("body *")) {
    if (![...el.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    if (!el.checkVisibility() || ["SCRIPT", "STYLE", "OPTION"].includes(el.tagName)) continue;
    const style = getComputedStyle(el), back = ground(el), [r, g, b, a] = parse(style.color);
    const ink = [r, g, b].map((v, i) => v * a + back[i] * (1 - a));
    const [x, y] = [lum(ink), lum(back)].sort((p, q) => q - p);
    const ratio = (x + 0.05) / (y + 0.05);
    if (ratio < 4.5) found.set(`${el.tagName}.${el.className} ${style.color} ${back.map(Math.round)}`, Math.round(ratio * 100) / 100);
  }
  return [...found];
}
