// The editor's own extension for SSH, its settings, and "Connect to Playground...".

import type { Memento } from 'vscode';
import { beforeEach, describe, expect, it } from 'vitest';
import manifest from '../../package.json';
import { CONNECT_TIMEOUT, configFile, offerSettings } from '../../src/remotesettings';
import { UIKind, commands, env, extensions, user } from './vscode';
import { acting, listed } from './world';

const ID = '0123456789abcdef01234567';
const OWN = { id: 'ada.labctl-ssh-proxy', packageJSON: manifest };
const opened = (): unknown[] => commands.ran.filter(([name]) => name === 'vscode.openFolder');

beforeEach(() => {
  Object.assign(user, { settings: {}, workspace: {}, known: {}, answer: undefined, answers: [], asked: [], offered: [], cancels: false });
  commands.ran = [];
  Object.assign(env, { uiKind: UIKind.Web, uriScheme: 'vscode' });
  extensions.all = [OWN];
});

describe('the extension that connects by SSH', () => {
  const resolver = (id: string) => ({ id, packageJSON: { activationEvents: ['onCommand:x', 'onResolveRemoteAuthority:ssh-remote'] } });

  it.each([
    ['vscode', 'ms-vscode-remote.remote-ssh'],
    ['vscode-insiders', 'ms-vscode-remote.remote-ssh'],
    ['vscodium', 'jeanp413.open-remote-ssh'],
    ['kiro', 'jeanp413.open-remote-ssh'],
    ['trae', 'jeanp413.open-remote-ssh'],
  ])('is offered in %s, and the window opens once it is installed', async (uriScheme, id) => {
    Object.assign(env, { uiKind: UIKind.Desktop, uriScheme });
    const { does, runs } = acting([listed()]);
    await expect(does['playgrounds.open'](ID)).rejects.toMatchObject({ kind: 'cancelled' });
    expect([user.asked, user.offered, opened()]).toEqual([[expect.stringContaining(`(${id})?`)], ['Install'], []]);
    // Nothing is woken before the question.
    expect(runs().filter((run) => !run.startsWith('list'))).toEqual([]);
    user.answers = ['Install'];
    await does['playgrounds.open'](ID);
    expect(commands.ran[0]).toEqual(['workbench.extensions.installExtension', id]);
    expect(opened()).toHaveLength(1);
  });

  it.each(['ms-vscode-remote.remote-ssh', 'anysphere.remote-ssh', 'codeium.windsurf-remote-openssh', 'google.antigravity-remote-openssh', 'of.the-future'])(
    'is %s',
    async (id) => {
      Object.assign(env, { uiKind: UIKind.Desktop });
      extensions.all = [OWN, resolver(id)];
      await acting([listed()]).does['playgrounds.open'](ID);
      expect([user.asked, opened().length]).toEqual([[], 1]);
    },
  );

  it('has its settings in a section of its own', async () => {
    const memory = { get: () => true, update: () => Promise.resolve() } as unknown as Memento;
    for (const section of ['remote.SSH', 'remote.devinSSH', 'remote.windsurfSSH', 'remote.antigravitySSH']) {
      Object.assign(user, { settings: { [`${section}.configFile`]: '/x' }, known: { [`${section}.connectTimeout`]: 15, [`${section}.remotePlatform`]: {} } });
      await offerSettings(memory, 'playground-x');
      expect(user.settings).toMatchObject({ [`${section}.connectTimeout`]: CONNECT_TIMEOUT, [`${section}.remotePlatform`]: { 'playground-x': 'linux' } });
      // A workspace does not choose the file that is written.
      user.workspace = { [`${section}.configFile`]: '/workspace' };
      expect(configFile()).toBe('/x');
      user.settings = {};
      expect(configFile()).toBe('');
    }
  });
});

it('says that a setup has failed, and opens the window', async () => {
  const line = 'the setup of machine work-01 of Mine failed: install.sh ended with exit status 3';
  const others = 'setting up work-01 of Mine';
  const { does } = acting([listed()], {}, `[ "$1" != start ] || printf "labctl-ssh-proxy: %s\\n" "${others}" "${line}" >&2`);
  await does['playgrounds.open'](ID);
  expect([user.asked, user.offered, opened().length]).toEqual([[`T${line.slice(1)}.`], ['Show Log'], 1]);
});

describe('connect to a playground', () => {
  it('asks which and how', async () => {
    const { does } = acting([listed(), listed({ id: 'f'.repeat(24), title: 'Gone', state: 'DESTROYED' })]);
    user.answers = ['Compose trial', 'Open in New Window'];
    await does['playgrounds.connect']();
    expect(user.asked).toEqual(['Select a playground to connect to', 'Select how to connect to Compose trial']);
    expect(opened()).toEqual([['vscode.openFolder', `vscode-remote://ssh-remote+playground-${ID}/home/laborant`, { forceNewWindow: true }]]);
    await does['playgrounds.connect']();
    expect(user.offered).toEqual(['Compose trial', 'Start a Playground...']);
  });

  it('is in the menu of the remote indicator, in groups that VS Code takes', () => {
    const entries = manifest.contributes.menus['statusBar/remoteIndicator'];
    // src/vs/workbench/contrib/remote/browser/remoteIndicator.ts ignores entries of other groups.
    for (const { group } of entries) expect(group).toMatch(/^(remote|virtualfs)_(\d\d)_(([a-z][a-z0-9+.-]*)_(.*))$/);
    expect(new Set(entries.map((one) => one.command))).toEqual(new Set(['playgrounds.connect']));
  });
});
