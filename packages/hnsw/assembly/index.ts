export { attach, clearEntry, levelOf, outKeysAt, outScoresAt, queriesAt, filterAt } from "./state";
export { insert } from "./insert";
export { search, queryAt, setFine } from "./search";
export { distances, resetVisits } from "./walk";
