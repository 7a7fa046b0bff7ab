"use strict";
// The map of guest memory: one pixel of an image for each row and moment, zoomed by the canvas.

async function unpacked(map) {
  const packed = Uint8Array.from(atob(map.shares), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

class MemoryMap {
  constructor(map, shares) {
    this.map = map;
    this.shares = shares;
    this.columns = map.time_ns.length;
    this.rows = map.row_pfn.length;
    this.times = map.time_ns.map((ns) => ns / NS);
    this.shown = map.keys.map(() => true);
    this.low = 0; // the rows that are shown: [low, high)
    this.high = this.rows;
    this.cursor = { row: 0, time: whole.from };
    this.place = document.getElementById("map");
    this.canvas = document.createElement("canvas");
    this.place.append(this.canvas);
    this.image = document.createElement("canvas");
    this.image.width = this.columns;
    this.image.height = this.rows;
  }

  share(state, row, column) {
    return this.shares[(state * this.rows + row) * this.columns + column] / this.map.levels;
  }

  // Free memory that had been given back, and is used at this moment: as a share of the row.
  cameBack(row, column) {
    return column === 0 ? 0 : Math.max(0, this.share(4, row, column - 1) - this.share(4, row, column));
  }

  colours() {
    const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    return this.map.keys.map((key) => {
      probe.fillStyle = colour("--" + key);
      probe.fillRect(0, 0, 1, 1);
      return probe.getImageData(0, 0, 1, 1).data;
    });
  }

  paint() {
    const colours = this.colours(), paper = colours[5], last = this.map.states;
    const context = this.image.getContext("2d");
    const pixels = context.createImageData(this.columns, this.rows);
    for (let row = 0; row < this.rows; row += 1) {
      for (let column = 0; column < this.columns; column += 1) {
        const back = this.shown[last] ? Math.min(1, 2 * this.cameBack(row, column)) : 0;
        const at = 4 * ((this.rows - 1 - row) * this.columns + column);
        for (let part = 0; part < 3; part += 1) {
          let sum = 0, all = 0;
          for (let state = 0; state < last; state += 1) {
            const share = this.share(state, row, column);
            all += share;
            sum += share * (this.shown[state] ? colours[state][part] : paper[part]);
          }
          sum += (1 - Math.min(all, 1)) * paper[part];
          pixels.data[at + part] = back * colours[last][part] + (1 - back) * sum / Math.max(all, 1);
        }
        pixels.data[at + 3] = 255;
      }
    }
    context.putImageData(pixels, 0, 0);
  }

  // The column that a moment lies in: a look holds until the next.
  column(time) {
    let low = 0, high = this.columns - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.times[middle] <= time) low = middle; else high = middle - 1;
    }
    return low;
  }

  draw() {
    const scale = devicePixelRatio, width = this.place.clientWidth;
    const height = Math.max(240, Math.min(420, width * 0.5));
    const left = 72, bottom = 30, top = 6;
    this.area = { left, top, width: width - left - 12, height: height - top - bottom };
    this.canvas.width = width * scale;
    this.canvas.height = height * scale;
    this.canvas.style.width = width + "px";
    this.canvas.style.height = height + "px";
    const context = this.canvas.getContext("2d");
    context.scale(scale, scale);
    context.imageSmoothingEnabled = false;
    this.drawImage(context);
    this.drawAxes(context);
    this.drawCursor(context);
  }

  // Looks need not be even in time: each column is drawn as wide as it holds.
  drawImage(context) {
    const { left, top, width, height } = this.area, span = view.to - view.from;
    const rows = this.high - this.low, from = this.rows - this.high;
    const x = (time) => left + (Math.min(Math.max(time, view.from), view.to) - view.from) / span * width;
    for (let column = this.column(view.from); column < this.columns; column += 1) {
      const start = x(this.times[column]);
      const end = column + 1 < this.columns ? x(this.times[column + 1]) : left + width;
      if (this.times[column] > view.to) break;
      if (end > start)
        context.drawImage(this.image, column, from, 1, rows, start, top, end - start + 0.5, height);
    }
  }

  drawAxes(context) {
    const { left, top, width, height } = this.area;
    context.fillStyle = colour("--dim");
    context.strokeStyle = colour("--line");
    context.strokeRect(left, top, width, height);
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "right";
    for (let step = 0; step <= 4; step += 1) {
      const row = Math.min(this.rows - 1, Math.floor(this.low + (this.high - this.low) * step / 4));
      const y = top + height * (1 - step / 4);
      context.fillText(bytes(this.map.row_pfn[row] * 4096), left - 6, Math.max(y, top + 8) + (step ? 4 : 0));
    }
    for (let step = 0; step <= 4; step += 1) {
      context.textAlign = step === 4 ? "right" : step ? "center" : "left";
      const time = view.from + (view.to - view.from) * step / 4;
      context.fillText(time.toPrecision(4) + " s", left + width * step / 4, top + height + 16);
    }
  }

  drawCursor(context) {
    if (document.activeElement !== this.place) return;
    const { left, top, width, height } = this.area;
    const x = left + (this.cursor.time - view.from) / (view.to - view.from) * width;
    const y = top + height * (1 - (this.cursor.row + 0.5 - this.low) / (this.high - this.low));
    context.strokeStyle = colour("--ink");
    context.beginPath();
    context.moveTo(x, top); context.lineTo(x, top + height);
    context.moveTo(left, y); context.lineTo(left + width, y);
    context.stroke();
  }

  tell() {
    const { row, time } = this.cursor, column = this.column(time), first = this.map.row_pfn[row];
    const parts = this.map.names.map((name, state) => {
      const share = state < this.map.states ? this.share(state, row, column) : this.cameBack(row, column);
      return [Math.round(100 * share), name];
    }).filter(([percent]) => percent > 0).map(([percent, name]) => percent + " % " + name);
    document.getElementById("map-readout").textContent =
      this.times[column].toFixed(3) + " s, " + bytes(first * 4096) + " to " +
      bytes((first + this.map.row_pages) * 4096) + ": " + parts.join(", ");
  }

  rowsAround(factor) {
    const middle = this.cursor.row + 0.5;
    const span = Math.max(4, Math.min(this.rows, (this.high - this.low) * factor));
    this.low = Math.max(0, Math.min(this.rows - span, middle - (middle - this.low) * factor));
    this.high = this.low + span;
  }

  point(row, time) {
    this.cursor.row = Math.max(0, Math.min(this.rows - 1, row));
    this.cursor.time = Math.max(whole.from, Math.min(whole.to, time));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = (view.to - view.from) / 60, rows = Math.max(1, Math.round((this.high - this.low) / 60));
    const { row, time } = this.cursor;
    switch (event.key) {
      case "ArrowUp": this.point(row + rows, time); break;
      case "ArrowDown": this.point(row - rows, time); break;
      case "ArrowLeft": this.point(row, time - step); break;
      case "ArrowRight": this.point(row, time + step); break;
      case "+": case "=": this.rowsAround(0.5); zoom(0.5, time); break;
      case "-": this.rowsAround(2); zoom(2, time); break;
      case "Home": this.low = 0; this.high = this.rows; show(whole.from, whole.to); break;
      default: return;
    }
    event.preventDefault();
    if (this.cursor.time < view.from || this.cursor.time > view.to)
      show(this.cursor.time - (view.to - view.from) / 2, this.cursor.time + (view.to - view.from) / 2);
    if (this.cursor.row < this.low || this.cursor.row >= this.high) this.rowsAround(1);
    this.draw();
    this.tell();
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect(), { left, top, width, height } = this.area;
    const x = (event.clientX - box.left - left) / width, y = 1 - (event.clientY - box.top - top) / height;
    return { time: view.from + x * (view.to - view.from),
      row: Math.floor(this.low + y * (this.high - this.low)) };
  }

  listen() {
    let start = null;
    this.place.addEventListener("keydown", (event) => this.key(event));
    this.place.addEventListener("focus", () => { this.draw(); this.tell(); });
    this.place.addEventListener("blur", () => this.draw());
    this.canvas.addEventListener("pointerdown", (event) => { start = this.under(event); });
    this.canvas.addEventListener("pointermove", (event) => {
      const { row, time } = this.under(event);
      this.point(row, time);
      this.tell();
    });
    this.canvas.addEventListener("pointerup", (event) => {
      const end = this.under(event);
      if (start && Math.abs(end.time - start.time) > (view.to - view.from) / 100) {
        if (Math.abs(end.row - start.row) > (this.high - this.low) / 20) {
          this.low = Math.max(0, Math.min(start.row, end.row));
          this.high = Math.min(this.rows, Math.max(start.row, end.row) + 1);
        }
        show(Math.min(start.time, end.time), Math.max(start.time, end.time));
      }
      start = null;
    });
    this.canvas.addEventListener("dblclick", () => {
      this.low = 0;
      this.high = this.rows;
      show(whole.from, whole.to);
    });
    document.getElementById("all").addEventListener("click", () => {
      this.low = 0;
      this.high = this.rows;
      this.draw();
    });
    for (const box of document.querySelectorAll("[data-state]"))
      box.addEventListener("change", () => {
        this.shown[box.dataset.state] = box.checked;
        this.paint();
        this.draw();
      });
  }
}

if (data.map) {
  unpacked(data.map).then((shares) => {
    const map = new MemoryMap(data.map, shares);
    redrawn(() => { map.paint(); map.draw(); });
    watchers.push(() => map.draw());
    map.listen();
    document.documentElement.dataset.drawn = "";
  });
}
