// The actions on a pod or a container of one that differ from those on other containers.

import * as vscode from 'vscode';
import { type Pod, type PodContainer, canEnter, podOption } from '../pods';
import { withLateProgress } from '../progress';
import type { Services } from '../services';
import { openTerminal } from './connect';
import { type Subject, containerOf, isOfPod, isUp, nameIn, target } from './target';

/** Shows the cluster of a playground whose names do not say that it has one. */
export async function showCluster(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isUp, 'show the cluster of');
  if (found) services.pods.want(found.playground.id);
}

/** Shows the log of a container: in a terminal that follows it, or in a document if it does not run, because the terminal would close. */
export async function showContainerLog(services: Services, subject: Subject): Promise<void> {
  const found = isOfPod(subject) && (await containerOf(subject, 'show the log of', hasHost));
  if (!found) return;
  const { playground, pod, podContainer } = found;
  const args = ['logs', playground.id, '--pod', podOption(podContainer.host), '--follow'];
  if (podContainer.running) await openTerminal(services, `log ${nameIn(pod, podContainer)}`, args);
  else await showDocument(services, pod, podContainer, 'log');
}

/** Shows the spec and the status of a container, as the API has them. */
export async function showSpec(services: Services, subject: Subject): Promise<void> {
  const found = isOfPod(subject) && (await containerOf(subject, 'show', hasHost));
  if (found) await showDocument(services, found.pod, found.podContainer, 'json');
}

const hasHost = ({ host }: PodContainer): boolean => host !== '';

async function showDocument({ documents }: Services, pod: Pod, container: PodContainer, kind: 'json' | 'log'): Promise<void> {
  await withLateProgress(`Reading ${nameIn(pod, container)}`, (signal) => documents.show(container.host, kind, signal));
}

/** Adds an ephemeral container, and opens a terminal in it. */
export async function debug(services: Services, subject: Subject): Promise<void> {
  if (!isOfPod(subject)) return;
  const { playground, pod } = subject;
  const suits = (one: PodContainer): boolean => canEnter(one) && (one.role === 'regular' || one.role === 'sidecar');
  const found = pod.containers.some(suits) ? await containerOf(subject, 'debug', suits) : subject;
  const image = found && (await enterImage(pod));
  const user = image === undefined ? undefined : await enterUser();
  if (image === undefined || user === undefined) return;
  const host = found?.kind === 'podContainer' ? found.podContainer.host : pod.host;
  const args = ['debug', playground.id, '--pod', podOption(host), '--ephemeral', image];
  await openTerminal(services, `debug ${pod.name}`, user === '' ? args : [...args, '--user', user]);
}

async function enterImage({ name }: Pod): Promise<string | undefined> {
  const entered = await vscode.window.showInputBox({
    prompt: `Enter the image of the container to add to ${name}. The pod lists it until the pod itself is deleted.`,
    value: 'busybox:musl',
    ignoreFocusOut: true,
    // A hyphen would make it an option.
    validateInput: (text) => (/^[a-z0-9][\w.\-/:@]*$/i.test(text.trim()) ? undefined : 'Enter for example busybox:musl.'),
  });
  return entered?.trim();
}

async function enterUser(): Promise<string | undefined> {
  const entered = await vscode.window.showInputBox({
    prompt: 'Enter the id of the user to run as, and that of a group if you like. If it is empty, one that suits the pod is taken.',
    placeHolder: '1000:1000',
    ignoreFocusOut: true,
    validateInput: (text) => (/^(\d+(:\d+)?)?$/.test(text.trim()) ? undefined : 'Enter for example 1000 or 1000:1000.'),
  });
  return entered?.trim();
}
