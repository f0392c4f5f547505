import { afterEach, describe, expect, it } from 'vitest';
import { findByHost, parseHost, playgroundHost, withoutContainer } from '../../src/authority';
import { windowAuthority } from '../../src/prewake';
import { env, workspace } from './vscode';

const HOST = 'playground-0123456789abcdef01234567';
const hex = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('hex');

describe('the host of a window', () => {
  it.each([
    [`ssh-remote+${HOST}`, HOST],
    [`ssh-remote+${HOST}.node-01`, `${HOST}.node-01`],
    ['ssh-remote+playground-docker', 'playground-docker'],
    ['ssh-remote+playground-docker.docker-01.proj_web-1', 'playground-docker.docker-01.proj_web-1'],
    ['ssh-remote+playground-k3s.pod.kube-system.coredns', 'playground-k3s.pod.kube-system.coredns'],
    ['ssh-remote+playground-k3s.pod.default.web-0.app', 'playground-k3s.pod.default.web-0.app'],
    [`ssh-remote+${hex({ hostName: `${HOST}.node-01.web`, user: 'container' })}`, `${HOST}.node-01.web`],
    [`ssh-remote+root@${HOST}`, HOST],
    [`ssh-remote+root%40${HOST}%3A22`, HOST],
    [`ssh-remote+root@${HOST}:22`, HOST],
    [`ssh-remote+${hex({ hostName: HOST })}`, HOST],
    [`ssh-remote+${hex({ hostName: HOST, user: 'root', port: 22 })}`, HOST],
    [`ssh-remote+${hex({ hostName: `root@${HOST}` }).toUpperCase()}`, HOST],
    [`dev-container+7b7d@ssh-remote+${HOST}`, HOST],
  ])('is read from %s', (authority, host) => {
    expect(playgroundHost(authority)).toBe(host);
  });

  it.each([
    '',
    'ssh-remote+example.com',
    'ssh-remote+my-playground-x',
    'ssh-remote+playground-',
    'ssh-remote+playground--x',
    'ssh-remote+playground-a.b.c.d',
    'ssh-remote+playground-a.pod.b.c.d.e',
    'ssh-remote+playground-a.pod.b..c',
    'ssh-remote+playground-a..c',
    'ssh-remote+playground-a.b.',
    'ssh-remote+playground-a.b.C',
    'ssh-remote+playground-$(id)',
    'ssh-remote+playground-a;b',
    'ssh-remote+playground-%',
    `ssh-remote+${hex({ hostName: 7 })}`,
    `ssh-remote+${hex('playground-x')}`,
    'ssh-remote+7b7b',
    `wsl+${HOST}`,
    `tunnel+${HOST}`,
  ])('is not a playground: %s', (authority) => {
    expect(playgroundHost(authority)).toBeUndefined();
  });
});

describe('the authority of a window', () => {
  afterEach(() => {
    workspace.workspaceFolders = undefined;
    workspace.workspaceFile = undefined;
    delete env.remoteAuthority;
  });

  it('is undefined for a local window', () => {
    expect(windowAuthority()).toBeUndefined();
    workspace.workspaceFolders = [{ uri: { scheme: 'file', authority: '' } }];
    expect(windowAuthority()).toBeUndefined();
  });

  it('is that of its workspace, its folder, or the editor', () => {
    env.remoteAuthority = 'ssh-remote+c';
    expect(windowAuthority()).toBe('ssh-remote+c');
    workspace.workspaceFolders = [{ uri: { scheme: 'vscode-remote', authority: 'ssh-remote+b' } }];
    expect(windowAuthority()).toBe('ssh-remote+b');
    workspace.workspaceFile = { scheme: 'vscode-remote', authority: 'ssh-remote+a' };
    expect(windowAuthority()).toBe('ssh-remote+a');
  });

  it('is undefined if the editor hides it', () => {
    Object.defineProperty(env, 'remoteAuthority', { configurable: true, get: () => { throw new Error('a proposed API'); } });
    expect(windowAuthority()).toBeUndefined();
  });
});

it('a host name means an id, or the first playground of a name', () => {
  const one = (digit: string, name: string, ofLesson = false): { id: string; template: { name: string }; ofLesson: boolean } =>
    ({ id: digit.repeat(24), template: { name }, ofLesson });
  const all = [one('3', 'docker', true), one('1', 'docker'), one('2', 'docker')];
  expect(findByHost(`playground-${'2'.repeat(24)}.node-01`, all)).toBe(all[2]);
  expect(findByHost(`playground-${'3'.repeat(24)}`, all)).toBe(all[0]);
  expect(findByHost('playground-docker', all)).toBe(all[1]);
  expect(findByHost('playground-docker.docker-01.web', all)).toBe(all[1]);
  expect(findByHost('playground-k3s', all)).toBeUndefined();
  expect(parseHost('playground-docker.node-01')).toEqual({ label: 'docker', isId: false, machine: 'node-01' });
});

it('a container is reached through its machine', () => {
  expect(parseHost('playground-docker.docker-01.web')).toEqual({ label: 'docker', isId: false, machine: 'docker-01' });
  expect(withoutContainer('playground-docker.docker-01.web')).toBe('playground-docker.docker-01');
  expect(withoutContainer('playground-docker.docker-01')).toBe('playground-docker.docker-01');
  expect(withoutContainer(HOST)).toBe(HOST);
});

it('a pod is reached through its playground', () => {
  const pod = 'playground-k3s.pod.default.web-0';
  for (const host of [pod, `${pod}.app`]) {
    expect(parseHost(host)).toEqual({ label: 'k3s', isId: false, machine: undefined });
    expect(withoutContainer(host)).toBe('playground-k3s');
  }
  // A container on a machine that is called so.
  expect(withoutContainer('playground-k3s.pod.web')).toBe('playground-k3s.pod');
});
