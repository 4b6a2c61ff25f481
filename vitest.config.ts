import { defineConfig } from "vitest/config";

const exclude = ["**/node_modules/**", "**/dist/**"];

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          sequence: { groupOrder: 1 },
          include: ["**/test/**/*.unit.test.ts"],
          exclude,
          testTimeout: 120_000,
          maxWorkers: 2,
        },
      },
      {
        test: {
          name: "integration",
          sequence: { groupOrder: 2 },
          include: ["**/test/**/*.int.test.ts"],
          exclude,
          globalSetup: ["packages/testkit/dist/vitest-postgres.js"],
          testTimeout: 180_000,
          hookTimeout: 120_000,
          maxWorkers: 2,
        },
      },
      {
        test: {
          name: "e2e",
          sequence: { groupOrder: 3 },
          include: ["test/e2e/**/*.e2e.test.ts"],
          exclude,
          globalSetup: ["packages/testkit/dist/vitest-postgres.js"],
          testTimeout: 300_000,
          hookTimeout: 120_000,
          maxWorkers: 2,
        },
      },
    ],
  },
});
