// The steps of the walkthrough, and the keys that complete them.

import { existsSync } from 'node:fs';
import * as path from 'node:path';
import { beforeEach, expect, it } from 'vitest';
import manifest from '../../package.json';
import { COMMANDS, STEPS, WALKTHROUGH } from '../../src/commands';
import { UIKind, commands, env, user } from './vscode';
import { acting, binary, folder, listed, program, viewOn } from './world';

beforeEach(() => {
  Object.assign(user, { answer: undefined, asked: [], opened: [], cancels: false });
  [commands.contexts, commands.ran, env.uiKind] = [{}, [], UIKind.Web];
});

it('has a button in each step, and a key that the code sets', () => {
  const [walkthrough, ...others] = manifest.contributes.walkthroughs;
  expect([walkthrough?.id, others]).toEqual([WALKTHROUGH, []]);
  const steps = walkthrough?.steps ?? [];
  expect(steps.map((one) => one.completionEvents)).toEqual(Object.values(STEPS).map((key) => [`onContext:${key}`]));
  for (const { description, media } of steps) {
    const buttons = [...description.matchAll(/^\[[^\]]+\]\(command:([^)]*)\)$/gm)].map(([, command]) => command);
    expect(buttons.length).toBeGreaterThan(0);
    for (const command of buttons) expect(COMMANDS).toContain(command);
    expect(existsSync(path.join(import.meta.dirname, '../..', media.markdown ?? media.image))).toBe(true);
  }
});

it('follows the list: no program, no login, no playground, one', async () => {
  const at = folder();
  const keys = async (lines: string): Promise<unknown[]> => {
    const view = viewOn(binary(lines === '' ? '/nowhere/x' : program(lines, '9.9.9', at)));
    commands.contexts = {};
    await view.watch.fetch().catch(() => undefined);
    view.end();
    return [STEPS.hasProgram, STEPS.isLoggedIn, STEPS.hasPlayground].map((key) => commands.contexts[key]);
  };
  const fails = (kind: string): string => `echo '{"error":{"kind":"${kind}","message":"x"}}'; exit 1`;
  expect(await keys('')).toEqual([false, undefined, undefined]);
  expect(await keys(fails('not-logged-in'))).toEqual([true, false, undefined]);
  expect(await keys(fails('network'))).toEqual([undefined, undefined, undefined]);
  expect(await keys('echo []')).toEqual([true, true, false]);
  expect(await keys(`echo '${JSON.stringify([listed()])}'`)).toEqual([true, true, true]);
});

it('the step of the ssh configuration is done once that is written', async () => {
  const { does, runs } = acting([listed()]);
  await does['playgrounds.configureSsh']();
  expect([runs(), commands.contexts[STEPS.isConfigured]]).toEqual([['config-ssh --yes --json'], true]);
  const failing = acting([listed()], {}, 'exit 1');
  commands.contexts = {};
  await expect(failing.does['playgrounds.configureSsh']()).rejects.toThrow();
  expect(commands.contexts).toEqual({});
});

it('the page of a login is opened by VS Code in a browser only, because elsewhere the program does it', async () => {
  const page = 'https://labs.iximiuz.com/auth/x?a=b';
  for (const [kind, opened] of [[UIKind.Web, [page]], [UIKind.Desktop, []]] as const) {
    Object.assign(user, { opened: [] });
    env.uiKind = kind;
    const { does } = acting([listed()], {}, `[ $1 = login ] && printf 'labctl-ssh-proxy: Confirm this login in your browser:\\n\\n    ${page}\\n\\n' >&2`);
    await does['playgrounds.login']();
    expect(user.opened).toEqual(opened);
  }
});
