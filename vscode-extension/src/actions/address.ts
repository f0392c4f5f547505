// Page addresses that a user pastes to start a playground.

import type { Learning } from '../playground';

/** Reads a text as a web address. */
export function webAddress(text: string): URL | undefined {
  const trimmed = text.trim();
  if (!/^https?:\/\/\S+$/i.test(trimmed)) return undefined;
  try {
    return new URL(trimmed);
  } catch {
    return undefined;
  }
}

/** The learning content at a page address: its kind, and the name in its path. */
export function contentAt({ pathname }: URL): Pick<Learning, 'kind' | 'name'> | undefined {
  const [collection, name = '', ...rest] = pathname.split('/').filter((part) => part !== '');
  if (name === '') return undefined;
  if (collection === 'challenges') return { kind: 'challenge', name };
  if (collection === 'tutorials') return { kind: 'tutorial', name };
  const lesson = rest.at(-1);
  return collection === 'courses' && lesson !== undefined ? { kind: 'lesson', name: lesson } : undefined;
}
