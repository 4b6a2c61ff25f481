// Prints the tables of the README: cosines of the synthetic models beside those of real descriptors.
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
const options = { impostorPairs: 5_000_000, falseAcceptRates: [1e-2, 1e-3, 1e-4, 1e-5, 1e-6] };

function measured(model) {
  const vectors = createFaceGenerator(model).matrix({ firstPerson: 0, persons, imagesPerPerson });
  const identities = Array.from({ length: persons * imagesPerPerson }, (_, r) =>
    Math.floor(r / imagesPerPerson),
  );
  return cosineStats({ dim: model.dim, vectors, identities }, options);
}

function lines(name, { genuine, impostor, accept }) {
  const spread = ({ mean, std }) => `${mean.toFixed(3)} ± ${std.toFixed(3)}`;
  const rates = accept.map(({ trueAccept }) => `${(100 * trueAccept).toFixed(1)} %`);
  const thresholds = accept.map(({ threshold }) => threshold.toFixed(3));
  console.log(`| ${[name, spread(genuine), spread(impostor), ...rates].join(" | ")} |`);
  console.log(`| ${["its tail", "", `largest ${impostor.max.toFixed(3)}`, ...thresholds].join(" | ")} |`);
}

console.log("| what | same person | different | at FAR 1e-2 | 1e-3 | 1e-4 | 1e-5 | 1e-6 |");
console.log("|---|---|---|---|---|---|---|---|");
const real = await loadRealDescriptors();
if (real) lines(`real, ${real.dim} dims`, cosineStats(real, options));
else console.error("no real descriptors: set LIM_TEST_DATA");
lines("lfwFaceModel, 128 dims", measured(lfwFaceModel));
lines("defaultFaceModel, 512 dims", measured(defaultFaceModel));
const startedMs = performance.now();
createFaceGenerator().matrix({ firstPerson: 0, persons: 20_000 });
console.log(`\n20,000 × 512 made in ${((performance.now() - startedMs) / 1_000).toFixed(1)} s`);
