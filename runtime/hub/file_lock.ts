/**
 * A lock between processes, and between callers of one process.
 *
 * @module
 */

/**
 * Takes the lock that the file at `path` stands for; disposing the result gives it back, and so does the end of the
 * process. The file is made when it is missing, and stays: removing it would let two holders in.
 *
 * @param options.onWait Called once when somebody else holds it.
 */
export async function lockFile(path: string, { onWait }: { readonly onWait: () => void }): Promise<Disposable> {
  const file = await Deno.open(path, { read: true, write: true, create: true });
  try {
    if (!await file.tryLock(true)) {
      onWait();
      await file.lock(true);
    }
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}
