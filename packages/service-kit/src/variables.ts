import { knownVariables } from "./known-variables.ts";
import { nearestOf } from "./nearest.ts";

type Env = Readonly<Record<string, string | undefined>>;

const ours = /^(?:VL_)?LIM_/;
/** Of this project's own tests and campaigns. */
const ofTests = /^LIM_(?:TEST|CHAOS)_/;

/** A misspelt name differs this little from a known one, and by no more than a quarter of what follows the prefix. */
const maxTypos = 2;
const maxShownNameChars = 100;
/** Of variables that are told of. */
export const maxStrangeVariables = 20;

export interface VariableFindings {
  /** One line each: what was most likely meant for a known name. */
  faults: string[];
  /** Names that no setting of LIM is like. */
  strange: string[];
}

/**
 * Looks at the environment's `LIM_…` variables that no service and no command knows. A near miss of a known name is a
 * fault: it would silently leave its setting at the default. Others are only strange: Kubernetes sets `LIM_…_SERVICE_HOST`
 * for every service named so, and a neighbouring version may know more names. Values are not looked at.
 */
export function unknownVariables(env: Env, own: Iterable<string> = []): VariableFindings {
  const known = new Set([...knownVariables, ...own]);
  const faults: string[] = [];
  const strange: string[] = [];
  for (const name of Object.keys(env).toSorted()) {
    if (!ours.test(name) || ofTests.test(name) || known.has(name) || !env[name]) continue;
    const shown = name.slice(0, maxShownNameChars);
    const nearest = nearestOf(shown, known);
    const allowed = Math.min(maxTypos, Math.floor(name.replace(ours, "").length / 4));
    if (nearest && nearest.distance <= allowed)
      faults.push(`${shown}: is no setting; the nearest is ${nearest.name}`);
    else strange.push(shown);
  }
  return { faults, strange: strange.slice(0, maxStrangeVariables) };
}
