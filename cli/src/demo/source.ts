import { readFile } from "node:fs/promises";
import { LimError } from "@lim/contracts";
import { createFaceGenerator, type FaceGenerator, faceIdOf } from "@lim/testkit";
import { parse } from "csv-parse/sync";

export interface DemoFace {
  faceId: string;
  externalId: string;
  vector: Float32Array;
}

export interface DemoList {
  name: string;
  faces: DemoFace[];
}

/** A known person's other image: the right answer is any face of theirs in the list. */
export interface Probe {
  vector: Float32Array;
  mates: ReadonlySet<string>;
}

export interface FaceSource {
  dim: number;
  description: string;
  large: DemoList;
  medium: DemoList;
  small: DemoList;
  /** Faces that are in none of the lists. */
  newcomers: DemoFace[];
  probesOf(list: DemoList, count: number): Probe[];
}

const newcomerCount = 25;
const synthetic = { large: 20_000, medium: 10_000, small: 5_000 } as const;

/** Three lists of synthetic people, one image each; probes are second images of theirs. */
export function syntheticSource(): FaceSource {
  const generator = createFaceGenerator();
  const people = (firstPerson: number, persons: number) => facesOf(generator, firstPerson, persons);
  const firstOf = { large: 0, medium: synthetic.large, small: synthetic.large + synthetic.medium };
  const lists = {
    large: { name: "demo-citizens", faces: people(firstOf.large, synthetic.large) },
    medium: { name: "demo-visitors", faces: people(firstOf.medium, synthetic.medium) },
    small: { name: "demo-staff", faces: people(firstOf.small, synthetic.small) },
  };
  const firstNewcomer = synthetic.large + synthetic.medium + synthetic.small;
  const { dim, genuineMean, genuineStd, effectiveDim } = generator.params;
  return {
    dim,
    description:
      `synthetic faces of ${dim} dimensions (cosine of one person's images ${genuineMean} ± ${genuineStd}, ` +
      `of different people's 0 ± ${(1 / Math.sqrt(effectiveDim)).toFixed(3)})`,
    ...lists,
    newcomers: people(firstNewcomer, newcomerCount),
    probesOf(list, count) {
      const first =
        list === lists.large ? firstOf.large : list === lists.medium ? firstOf.medium : firstOf.small;
      return spread(list.faces, count).map(({ face, index }) => ({
        vector: generator.vector(first + index, 1),
        mates: new Set([face.faceId]),
      }));
    },
  };
}

function facesOf(generator: FaceGenerator, firstPerson: number, persons: number): DemoFace[] {
  const { dim } = generator.params;
  const matrix = generator.matrix({ firstPerson, persons });
  return Array.from({ length: persons }, (_, i) => ({
    faceId: faceIdOf("demo", firstPerson + i),
    externalId: `person-${firstPerson + i}`,
    vector: matrix.subarray(i * dim, (i + 1) * dim),
  }));
}

/** `count` faces at even distances. */
function spread(faces: readonly DemoFace[], count: number): { face: DemoFace; index: number }[] {
  const step = Math.max(1, Math.floor(faces.length / count));
  const picked: { face: DemoFace; index: number }[] = [];
  for (let index = 0; index < faces.length && picked.length < count; index += step) {
    const face = faces[index];
    if (face) picked.push({ face, index });
  }
  return picked;
}

/**
 * Lists of given descriptors. Of everyone with two or more images the last one is held back as a probe; newcomers are
 * people with one image. Throws bad_input where the files do not fit each other or are too few.
 */
export async function realSource(options: {
  faces: string;
  names: string;
  dim: number;
}): Promise<FaceSource> {
  const [data, table] = await Promise.all([readInput(options.faces), readInput(options.names)]);
  const rows = parse(table, { columns: true, bom: true, skip_empty_lines: true }) as Record<string, string>[];
  const rowBytes = options.dim * 4;
  if (data.length % rowBytes !== 0 || data.length / rowBytes !== rows.length)
    throw new LimError(
      "bad_input",
      `${options.faces} holds ${data.length / rowBytes} rows of ${options.dim} numbers, ${options.names} names ${rows.length}`,
    );
  const vectors = new Float32Array(new Uint8Array(data).buffer);
  const byPerson = new Map<string, DemoFace[]>();
  for (const [row, { identity, image }] of rows.entries()) {
    if (identity === undefined || image === undefined)
      throw new LimError("bad_input", `${options.names} needs the columns identity and image`);
    const face = {
      faceId: faceIdOf("demo-real", row),
      externalId: image,
      vector: vectors.subarray(row * options.dim, (row + 1) * options.dim),
    };
    byPerson.set(identity, [...(byPerson.get(identity) ?? []), face]);
  }
  return divide(byPerson, rows.length, options.dim);
}

function divide(byPerson: Map<string, DemoFace[]>, rowCount: number, dim: number): FaceSource {
  const newcomers: DemoFace[] = [];
  const probes: { faces: DemoFace[]; vector: Float32Array }[] = [];
  const gallery: DemoFace[] = [];
  for (const faces of byPerson.values()) {
    const [first] = faces;
    if (faces.length === 1 && first && newcomers.length < newcomerCount) newcomers.push(first);
    else {
      const held = faces.length > 1 ? faces.at(-1) : undefined;
      const kept = held ? faces.slice(0, -1) : faces;
      if (held) probes.push({ faces: kept, vector: held.vector });
      gallery.push(...kept);
    }
  }
  if (newcomers.length < newcomerCount || probes.length < 20 || gallery.length < 400)
    throw new LimError(
      "bad_input",
      `too few faces: the demo needs ${newcomerCount} people with one image, 20 with more, and 400 images besides`,
    );
  const part = (name: string, share: number): DemoList => ({
    name,
    faces: gallery.slice(0, Math.floor(gallery.length * share)),
  });
  return {
    dim,
    description: `${rowCount} given descriptors of ${byPerson.size} people, ${dim} dimensions`,
    large: part("demo-citizens", 1),
    medium: part("demo-visitors", 0.5),
    small: part("demo-staff", 0.1),
    newcomers,
    probesOf(list, count) {
      const inList = new Set(list.faces.map((face) => face.faceId));
      return probes
        .map(({ faces, vector }) => ({
          vector,
          mates: new Set(faces.map((face) => face.faceId).filter((faceId) => inList.has(faceId))),
        }))
        .filter(({ mates }) => mates.size > 0)
        .slice(0, count);
    },
  };
}

async function readInput(path: string): Promise<Buffer> {
  return readFile(path).catch((cause: unknown) => {
    throw new LimError("bad_input", `cannot read ${path}`, { cause });
  });
}
