// The command words of the core as records: start here to know what the core can be asked to do.
// A command is 512 bits, sixteen little-endian 32-bit words; README.md has the same layout as a table.
package core_types;
  localparam logic [1:0] UNIT_LOAD = 2'd0, UNIT_COMPUTE = 2'd1, UNIT_STORE = 2'd2;
  localparam logic [1:0] BUFFER_A = 2'd0, BUFFER_R = 2'd1, BUFFER_W = 2'd2;

  // Commands that each unit has finished, modulo 65536.
  typedef struct packed {
    logic [15:0] store, compute, load;
  } counts_t;

  typedef struct packed {
    logic [287:0] unused;                                                           // words 7 to 15
    logic [31:0] plane_pitch;                                                       // word 6, bytes
    logic [31:0] run_pitch;                                                         // word 5, bytes
    logic [15:0] planes, runs;                                                      // word 4
    logic [15:0] words, address;                                                    // word 3
    logic [31:0] memory;                                                            // word 2, byte address
    counts_t waits;                                                                 // word 1 and half of word 0
    logic [11:0] zero;
    logic [1:0] where;
    logic [1:0] unit;
  } transfer_t;

  typedef struct packed {
    logic [58:0] unused;                                                            // word 15 and most of word 14
    logic [4:0] sum_shift;                                                          // word 14
    logic [15:0] to_r_address, to_a_address;                                        // word 13
    logic [15:0] skip_address, acc_address;                                         // word 12
    logic [15:0] scale_skip, scale_main;                                            // word 11
    logic [7:0] high, low, zero_sum, zero_skip;                                     // word 10
    logic [15:0] tap_step, row_step;                                                // word 9
    logic [7:0] zero_main, padding, dilation_rows, dilation_columns;                // word 8
    logic [7:0] stride_rows, stride_columns, kernel_rows, kernel_columns;           // word 7
    logic [15:0] first_row, first_column;                                           // word 6
    logic [15:0] in_rows, in_columns;                                               // word 5
    logic [15:0] rows, columns;                                                     // word 4
    logic [15:0] passes, w_address;                                                 // word 3
    logic [15:0] plane_pitch, a_address;                                            // word 2
    counts_t waits;                                                                 // word 1 and half of word 0
    logic [6:0] zero;
    logic residual, to_r, to_a, diagonal, maximum, last, first;
    logic [1:0] unit;
  } compute_t;

  // What the output side needs to know of the command whose results are on their way.
  typedef struct packed {
    logic residual, to_r, to_a;
    logic [15:0] to_r_address, to_a_address, skip_address;
    logic [15:0] scale_skip, scale_main;
    logic [7:0] high, low, zero_sum, zero_skip, zero_main;
    logic [4:0] sum_shift;
  } output_t;

  // What travels with a vector of activations through the array and the accumulators.
  typedef struct packed {
    logic valid;
    logic swap;      // the first vector of a pass: the next weights take over
    logic first;     // the sum starts anew
    logic last;      // the sum is complete and goes to the output side
    logic maximum;   // the larger instead of the sum
    logic ends;      // the last vector of a command
  } token_t;
  localparam int TOKEN_BITS = 6;
endpackage
