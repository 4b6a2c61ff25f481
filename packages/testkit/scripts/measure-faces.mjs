// Prints the table of the README: cosines of the synthetic models beside those of real descriptors.
//   LIM_TEST_DATA=<folder> node packages/testkit/scripts/measure-faces.mjs
import {
  cosineStats,
  createFaceGenerator,
  defaultFaceModel,
  lfwFaceModel,
  loadRealDescriptors,
} from "@lim/testkit";

const persons = 3_000;
const imagesPerPerson = 4;
const options = { impostorPairs: 1_000_000 };

function measured(model) {
  const vectors = createFaceGenerator(model).matrix({ firstPerson: 0, persons, imagesPerPerson });
  const identities = Array.from({ length: persons * imagesPerPerson }, (_, r) =>
    Math.floor(r / imagesPerPerson),
  );
  return cosineStats({ dim: model.dim, vectors, identities }, options);
}

function line(name, { genuine, impostor, accept }) {
  const spread = ({ mean, std }) => `${mean.toFixed(3)} ± ${std.toFixed(3)}`;
  const rates = accept.map(({ trueAccept }) => `${(100 * trueAccept).toFixed(1)} %`);
  console.log(`| ${[name, spread(genuine), spread(impostor), ...rates].join(" | ")} |`);
}

console.log(
  "| what | same person | different | true accept at FAR 1e-2 | 1e-3 | 1e-4 |\n|---|---|---|---|---|---|",
);
const real = await loadRealDescriptors();
if (real) line(`real, ${real.dim} dims`, cosineStats(real, options));
else console.error("no real descriptors: set LIM_TEST_DATA");
line("lfwFaceModel, 128 dims", measured(lfwFaceModel));
line("defaultFaceModel, 512 dims", measured(defaultFaceModel));
const startedMs = performance.now();
createFaceGenerator().matrix({ firstPerson: 0, persons: 20_000 });
console.log(`\n20,000 × 512 made in ${((performance.now() - startedMs) / 1_000).toFixed(1)} s`);
