/**
 * A file of full-precision rows beside the memory: float32, the row of a slot where a saved file of rows has it.
 * - `private`: threads write the rows that they insert; deleted with the index
 * - `spooled`: rows are written before they are inserted, and `save` finishes the file where it lies; until then it is
 *   deleted with the index
 * - `in place`: a finished file that is read and never written
 */
export interface RowsFile {
  path: string;
  mode: "private" | "spooled" | "in place";
}
