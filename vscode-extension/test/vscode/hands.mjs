// The eyes and hands of a user in a window of VS Code: reads the lines of the view, clicks their buttons and menus, runs
// commands from the palette.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { withPalette } from './png.mjs';
import { extension, until } from './world.mjs';

/** Takes a picture of a part of the window. `folder` is that of the extension's page, unless the picture is for another. */
export async function picture(page, name, clip, folder = process.env.PICTURES) {
  const file = path.join(folder ?? path.join(extension, 'dist'), `${name}.png`);
  writeFileSync(file, withPalette(await page.screenshot({ clip })));
}

export const rows = (page) => page.locator('.pane-body .monaco-list-row').allInnerTexts();
export const row = (page, text) => page.locator('.pane-body .monaco-list-row', { hasText: text });

export async function sees(page, what, look, ms) {
  const began = Date.now();
  try {
    await until(what, look, ms);
  } catch (error) {
    console.log(await rows(page));
    throw error;
  }
  return Date.now() - began;
}

export const text = (page, words, ms) => sees(page, words, async () => (await page.locator('body').innerText()).includes(words), ms);

/** The right end of a wide side bar. */
const WIDE = 500;

/** Makes the side bar wide, so that long lines have room. */
export async function widen(page) {
  // The border of an old VS Code is where the side bar ends; that of a new one is behind a gap.
  let gap = 2;
  await until('the side bar is wide', async () => {
    const { x, width } = await page.locator('.part.sidebar').first().boundingBox();
    if (Math.abs(x + width - WIDE) < 5) return true;
    await page.mouse.move(x + width + gap, 500);
    gap = gap === 2 ? 0 : 2;
    await page.mouse.down();
    await page.mouse.move(WIDE, 500, { steps: 5 });
    await page.mouse.up();
    return false;
  });
  // Away from the border, which is highlighted under the pointer.
  await page.mouse.move(900, 500);
}

/** Runs a command from the palette and answers its questions, each by an entry of a list or by a text. */
export async function command(page, title, ...answers) {
  const widget = page.locator('.quick-input-widget');
  const input = widget.locator('input[type=text]').first();
  await page.keyboard.press('F1');
  await input.fill(`>Playgrounds: ${title}`);
  await widget.locator('.monaco-list-row', { hasText: `Playgrounds: ${title}` }).first().waitFor();
  await input.press('Enter');
  for (const { asked, answer } of answers) {
    // The previous question keeps its text while it is hidden.
    const isAsked = async () =>
      (await input.isVisible()) && ((await input.getAttribute('placeholder'))?.includes(asked) || (await widget.innerText()).includes(asked));
    await sees(page, asked, isAsked);
    await input.fill(answer);
    await sees(page, `${asked} ${answer}`, async () => (await widget.locator('.monaco-list-row').count()) <= 1);
    await input.press('Enter');
  }
}

/**
 * Waits until the view has not changed for a moment, because VS Code loses clicks while it loads lines, and until no tooltip
 * hides a line.
 */
async function quiet(line) {
  const page = line.page();
  await page.mouse.move(900, 300);
  let before;
  await until('the view is quiet', async () => {
    const now = String(await rows(page));
    const same = now === before && (await page.locator('.hover-contents').count()) === 0;
    before = now;
    await page.waitForTimeout(300);
    return same;
  });
}

/** Clicks a line until it is expanded, or is not. VS Code may lose a click, or what it did, while it loads lines. */
async function fold(line, expanded) {
  await until(`the line is ${expanded ? 'expanded' : 'collapsed'}`, async () => {
    await quiet(line);
    if ((await line.getAttribute('aria-expanded', { timeout: 2000 }).catch(() => undefined)) === String(expanded)) return true;
    await line.click({ timeout: 2000 }).catch(() => undefined);
    return false;
  }, 60_000);
}
export const expand = (line) => fold(line, true);
export const collapse = (line) => fold(line, false);

/** Clicks an entry in the menu of a line. */
export async function menu(page, line, entry) {
  await quiet(line);
  await line.click({ button: 'right' });
  const item = page.locator('.monaco-menu .action-label', { hasText: entry }).first();
  // A menu that has just opened ignores clicks for a moment.
  await until(`${entry} is clicked`, async () => {
    await item.click({ timeout: 2000 }).catch(() => undefined);
    return (await item.count()) === 0;
  });
}

/** Picks an entry of a list, until the list has closed or is another one. */
export async function pick(page, words) {
  const list = page.locator('.quick-input-list');
  const entry = list.locator('.monaco-list-row', { hasText: words }).first();
  await entry.waitFor({ timeout: 30_000 });
  const before = await list.innerText();
  const isOver = async () => !(await list.isVisible()) || (await list.innerText()) !== before;
  await until(`${words} is picked`, async () => {
    if (await isOver()) return true;
    await entry.click({ timeout: 2000 }).catch(() => undefined);
    await page.waitForTimeout(500);
    return isOver();
  }, 30_000);
}

/** Clicks a button of a line, which shows while the pointer is over it. */
export async function button(line, name) {
  await quiet(line);
  await line.hover();
  await line.getByRole('button', { name }).click();
}

export const answer = (page, name) => page.locator('.monaco-dialog-box').getByRole('button', { name }).click();
