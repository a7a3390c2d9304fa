/** A length of time, as bodies of requests have it: `Duration.days(90)`. */
export class Duration {
  private constructor(readonly seconds: number) {
    if (!Number.isFinite(seconds) || seconds < 0) throw new RangeError("a duration is a number that is not negative");
  }

  static seconds(n: number): Duration {
    return new Duration(n);
  }

  static minutes(n: number): Duration {
    return new Duration(n * 60);
  }

  static hours(n: number): Duration {
    return new Duration(n * 3600);
  }

  static days(n: number): Duration {
    return new Duration(n * 86400);
  }

  toJSON(): string {
    return `${Number(this.seconds.toFixed(6))}s`;
  }
}
