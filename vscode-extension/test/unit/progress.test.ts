import { expect, it } from 'vitest';
import { withLateProgress } from '../../src/progress';
import { user } from './vscode';

it('quick work shows no notification, and work that takes longer can be cancelled', async () => {
  await expect(withLateProgress('quick', () => Promise.resolve(1))).resolves.toBe(1);
  await expect(withLateProgress('broken', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
  expect(user.shown).toEqual([]);
  const slow = withLateProgress('slow', (signal) =>
    new Promise((_, reject) => {
      signal.addEventListener('abort', () => { reject(new Error('cancelled')); });
    }),
  );
  await expect(slow).rejects.toThrow('cancelled');
  expect(user.shown).toEqual(['slow']);
});
