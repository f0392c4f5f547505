// The choices of a start.

import { beforeEach, describe, expect, it } from 'vitest';
import { user } from './vscode';
import { acting, listed } from './world';

beforeEach(() => {
  Object.assign(user, { settings: {}, known: {}, answer: undefined, answers: [], asked: [], offered: [], cancels: false, typed: '' });
});

describe('an entry whose start has choices', () => {
  const values = [
    { key: 'Runtime', default: 'docker', options: ['containerd', 'docker'] },
    { key: 'Team', default: '', placeholder: 'blue', validationRegex: '^[a-z]+$' },
    { key: 'Note', default: '', nullable: true },
    null, {},
  ];
  const catalog = [{ name: 'docker', title: 'Docker', owner: '', initConditions: { values } }];

  it('is started with those that the user makes', async () => {
    const { does, runs } = acting([listed()], { catalog });
    user.answers = ['Docker', 'containerd', 'blue'];
    await does['playgrounds.start']();
    expect(user.asked.slice(1, 3)).toEqual(['Select the value of "Runtime"', 'Enter a value for "Team"']);
    expect(runs()).toContain('start docker --json -i Runtime=containerd -i Team=blue');
  });

  it('is not started if the user cancels', async () => {
    const { does, runs } = acting([listed()], { catalog });
    user.answers = ['Docker', 'containerd', undefined];
    await does['playgrounds.start']();
    expect(user.offered).toEqual([]);
    expect(runs().filter((run) => run.startsWith('start'))).toEqual([]);
  });
});
