// The machines of a running playground: reboot, stop, start again, console, journal.

import { readConsole } from '../json';
import { type Machine, isOff } from '../playground';
import { withProgress } from '../progress';
import type { Services } from '../services';
import { openTerminal } from './connect';
import { type Subject, type Target, anyMachineOf, isUp, target } from './target';

type MachineTarget = Target & { machine: Machine };

export const reboot = (services: Services, subject: Subject): Promise<void> => act(services, subject, 'reboot', 'Rebooting');
export const stopMachine = (services: Services, subject: Subject): Promise<void> => act(services, subject, 'stop', 'Stopping');
/** Starts a machine that was stopped while its playground runs on. */
export const startMachine = (services: Services, subject: Subject): Promise<void> => act(services, subject, 'restart', 'Starting');

async function act(services: Services, subject: Subject, action: string, title: string): Promise<void> {
  const found = await machineTarget(services, subject, `${action} a machine of`);
  if (!found) return;
  const { binary, watch } = services;
  const args = ['machine', action, found.playground.id, found.machine.name, '--json'];
  await withProgress(`${title} ${found.machine.name}`, ({ signal, report }) => binary.run(args, { signal, onProgress: report }));
  await watch.catchUp();
}

/** Shows the console of a machine: in a terminal that follows it, or in the log once the machine has stopped. */
export async function showConsole(services: Services, subject: Subject): Promise<void> {
  const found = await machineTarget(services, subject, 'show a console of');
  if (!found) return;
  if (isOff(found.machine)) await logConsole(services, found);
  else await openTerminal(services, `console ${found.machine.name}`, ['machine', 'console', found.playground.id, found.machine.name, '--follow']);
}

async function logConsole({ binary, log }: Services, { playground, machine }: MachineTarget): Promise<void> {
  const content = await binary.ask(['machine', 'console', playground.id, machine.name, '--json'], readConsole);
  log.info(`the console of ${machine.name}\n${content}`);
  log.show();
}

/** Follows the journal of a machine in a terminal. */
export async function followJournal(services: Services, subject: Subject): Promise<void> {
  const found = await machineTarget(services, subject, 'follow a journal of');
  if (!found) return;
  await openTerminal(services, `journal ${found.machine.name}`, ['machine', 'journal', found.playground.id, found.machine.name, '--follow']);
}

async function machineTarget(services: Services, subject: Subject, purpose: string): Promise<MachineTarget | undefined> {
  const found = await target(services, subject, isUp, purpose);
  const machine = found && (await anyMachineOf(found));
  return machine && { ...found, machine };
}
